"""Cached features for training loops of one's own: torch datasets, a loader that resumes, a Hugging Face view."""

from .collate import collate_packed as collate_packed
from .collate import collate_padded as collate_padded
from .dataset import FeatureDataset as FeatureDataset
from .huggingface import huggingface_dataset as huggingface_dataset
from .iterable import FeatureLoader as FeatureLoader
from .iterable import IterableFeatureDataset as IterableFeatureDataset
