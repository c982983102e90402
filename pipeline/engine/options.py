"""How a store's segments are written; none of it changes what is read back, but `stored` rounds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

from ...cache.errors import UserError
from ...cache.segment import Codec, Format, Stored
from ...cache.segment.contents import check_format


@dataclass(frozen=True)
class StoreOptions:
    """Format and codec of the segments to write, and the type tokens are kept in."""

    format: Format = "zarr"
    codec: Codec = "none"
    stored: Stored = "float16"


def store_options(format: str, codec: str, stored: str) -> StoreOptions:
    """StoreOptions from text. Raises UserError naming what is known."""
    check_format(format, codec)
    return StoreOptions(cast(Format, format), cast(Codec, codec), stored_type(stored))


def stored_type(stored: str) -> Stored:
    """What --store says. Raises UserError."""
    if stored not in get_args(Stored):
        raise UserError(f"--store {stored} is not known: use {' or '.join(get_args(Stored))}.")
    return cast(Stored, stored)
