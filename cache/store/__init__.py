"""One modality of a dataset, encoded one way: its identity, its versions, and reading them."""

from .features import Features as Features
from .features import open_features as open_features
from .identity import Identity as Identity
from .index import Index as Index
from .index import IndexBuilder as IndexBuilder
from .store import Draft as Draft
from .store import Store as Store
from .times import token_times as token_times
from .verified import verified_rows as verified_rows
from .version import Log as Log
from .version import Version as Version
from .write import write_features as write_features
