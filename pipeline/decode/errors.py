"""Why one item could not be decoded: recorded beside the item, never fatal to a run."""

from ...cache.errors import RunFailed


class DecodeError(RunFailed):
    """One item's bytes are not what its modality needs; the message is the reason written to items.parquet."""
