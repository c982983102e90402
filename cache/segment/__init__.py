"""One immutable piece of a store: features of some samples, in Zarr v3 or HDF5, named by its inputs and its bytes."""

from .buffers import Buffers as Buffers
from .contents import SEGMENTS as SEGMENTS
from .contents import STATUSES as STATUSES
from .contents import Codec as Codec
from .contents import Contents as Contents
from .contents import Format as Format
from .contents import Items as Items
from .contents import SegmentName as SegmentName
from .contents import inputs_digest as inputs_digest
from .encoding import Stored as Stored
from .read import SegmentReader as SegmentReader
from .read import open_segment as open_segment
from .read import read_segment as read_segment
from .write import Packed as Packed
from .write import Segment as Segment
from .write import is_intact as is_intact
from .write import pack_features as pack_features
from .write import pack_segment as pack_segment
from .write import put_segment as put_segment
from .write import put_segments as put_segments
from .write import write_segment as write_segment
from .zarr import MARKER as MARKER
