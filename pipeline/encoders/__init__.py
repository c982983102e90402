"""Frozen encoders: one transformers model with its own processor, turning media of one modality into (S, D) tokens."""

from .base import FrozenEncoder
from .build import build_encoder
from .identity import check_same_identity, library_versions, version_changes
from .spec import EncoderSpec, parse_pooling, resolve_spec

__all__ = [
    "EncoderSpec",
    "FrozenEncoder",
    "build_encoder",
    "check_same_identity",
    "library_versions",
    "parse_pooling",
    "resolve_spec",
    "version_changes",
]
