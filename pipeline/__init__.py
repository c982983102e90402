"""Stage 1: raw media through frozen encoders into feature stores."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .collection import Collection as Collection
    from .datasets import ADAPTERS as ADAPTERS
    from .datasets import load_dataset as load_dataset
    from .encoders import EncoderSpec as EncoderSpec
    from .engine.options import StoreOptions as StoreOptions
    from .extraction import ExtractOptions as ExtractOptions
    from .extraction import extract as extract

_EXPORTS = {
    "ADAPTERS": ".datasets",
    "Collection": ".collection",
    "EncoderSpec": ".encoders",
    "ExtractOptions": ".extraction",
    "StoreOptions": ".engine.options",
    "extract": ".extraction",
    "load_dataset": ".datasets",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    # Loaded on first use: transformers and torch take seconds, and `pgm --help` needs neither.
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name], __name__), name)
