"""Frozen encoders: one transformers model with its own processor, turning media of one modality into (S, D) tokens."""

from .base import FrozenEncoder
from .build import build_encoder
from .spec import EncoderSpec, parse_pooling

__all__ = ["EncoderSpec", "FrozenEncoder", "build_encoder", "parse_pooling"]
