"""Frozen encoders: one transformers model with its own processor, turning media of one modality into (S, D) tokens."""

from .base import FrozenEncoder
from .build import build_encoder, fetch_encoders
from .builders import Builder
from .identity import check_same_identity, library_versions, version_changes
from .presets import specs_for
from .spec import EncoderSpec, parse_pooling, resolve_spec

__all__ = [
    "Builder",
    "EncoderSpec",
    "FrozenEncoder",
    "build_encoder",
    "check_same_identity",
    "fetch_encoders",
    "library_versions",
    "parse_pooling",
    "resolve_spec",
    "specs_for",
    "version_changes",
]
