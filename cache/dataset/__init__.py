"""A dataset in the cache: card, samples, splits, masks and the stores that belong together."""

from .card import DatasetCard as DatasetCard
from .card import Task as Task
from .dataset import CachedDataset as CachedDataset
from .dataset import DatasetVersion as DatasetVersion
from .dataset import Place as Place
from .dataset import list_datasets as list_datasets
from .dataset import open_dataset as open_dataset
from .dataset import publish as publish
