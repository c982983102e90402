"""A dataset in the cache: card, samples, splits, masks and the stores that belong together."""

from .card import SPLITS as SPLITS
from .card import DatasetCard as DatasetCard
from .dataset import CachedDataset as CachedDataset
from .dataset import DatasetVersion as DatasetVersion
from .dataset import Place as Place
from .dataset import list_datasets as list_datasets
from .dataset import open_dataset as open_dataset
from .dataset import publish as publish
from .dataset import refuse_earlier as refuse_earlier
from .dataset import store_folders as store_folders
from .masked import Fill as Fill
from .masked import masked as masked
from .masks import Mask as Mask
from .masks import make_mask as make_mask
from .samples import ids_digest as ids_digest
from .sources import SharedSources as SharedSources
from .sources import rows_of as rows_of
from .sources import shared_sources as shared_sources
from .splits import NamedSplit as NamedSplit
from .splits import make_split as make_split
from .splits import named_splits as named_splits
from .splits import open_split as open_split
from .splits import split_names as split_names
