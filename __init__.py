"""PgM: frozen encoders once, features in a checkable cache, small multimodal heads trained from it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache import open_dataset as open_dataset
    from .cache import open_features as open_features
    from .loaders import FeatureDataset as FeatureDataset
    from .loaders import FeatureLoader as FeatureLoader
    from .loaders import IterableFeatureDataset as IterableFeatureDataset
    from .loaders import collate_packed as collate_packed
    from .loaders import collate_padded as collate_padded
    from .loaders import huggingface_dataset as huggingface_dataset
    from .pipeline import extract as extract
    from .trainer import PgMClassifier as PgMClassifier
    from .trainer import PgMRegressor as PgMRegressor
    from .trainer import Run as Run
    from .trainer import ablate as ablate
    from .trainer import evaluate as evaluate
    from .trainer import open_run as open_run
    from .trainer import predict as predict
    from .trainer import table as table
    from .trainer import train as train
    from .trainer.head import FusionConfig as FusionConfig
    from .trainer.head import FusionHead as FusionHead
    from .trainer.head import PgM as PgM
    from .trainer.head import PgMConfig as PgMConfig

_EXPORTS = {
    "FeatureDataset": ".loaders",
    "FeatureLoader": ".loaders",
    "FusionConfig": ".trainer.head",
    "FusionHead": ".trainer.head",
    "IterableFeatureDataset": ".loaders",
    "PgM": ".trainer.head",
    "PgMConfig": ".trainer.head",
    "collate_packed": ".loaders",
    "collate_padded": ".loaders",
    "extract": ".pipeline",
    "huggingface_dataset": ".loaders",
    "open_dataset": ".cache",
    "open_features": ".cache",
    "PgMClassifier": ".trainer",
    "PgMRegressor": ".trainer",
    "Run": ".trainer",
    "ablate": ".trainer",
    "evaluate": ".trainer",
    "open_run": ".trainer",
    "predict": ".trainer",
    "table": ".trainer",
    "train": ".trainer",
}
__all__ = list(_EXPORTS)
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # Loaded on first use: reading a cache should not cost importing torch.
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
