"""Stage 1: raw media through frozen encoders into feature stores."""

from .collection import Collection
from .datasets import ADAPTERS, load_dataset
from .encoders import EncoderSpec
from .extract import ExtractOptions, extract
from .plan import StoreOptions

__all__ = ["ADAPTERS", "Collection", "EncoderSpec", "ExtractOptions", "StoreOptions", "extract", "load_dataset"]
