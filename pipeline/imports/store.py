"""Packed arrays as a store: the segments and commit of an extraction, with the rows themselves as the sources.

A sample's source digest is of its own rows, so that importing a file that has grown or changed writes what is new, and
equal arrays have equal content whatever file they came from. What names the store is where in a file the array stood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.dataset import ids_digest
from ...cache.segment import Stored
from ...cache.storage import Storage
from ...cache.store import Identity, write_features

# Of what a layout says of an array, what stands in the store's name: not the file's bytes, which every row has its own
# digest of.
NAMED_BY = ("key", "layout")


@dataclass(frozen=True, eq=False)
class PackedModality:
    """A modality to be stored. tokens: (T, D); lengths: (N,), 0 where missing; source: where the array came from."""

    name: str
    tokens: NDArray[Any]
    lengths: NDArray[np.int64]
    source: Mapping[str, Any]
    stored: Stored

    @property
    def identity(self) -> Identity:
        """What names the store."""
        file = str(self.source.get("file", "arrays"))
        told = {name: self.source[name] for name in NAMED_BY if name in self.source}
        fields = {"provenance": "imported", "file": file, "dim": self.tokens.shape[1], "stored_dtype": self.stored}
        return Identity(self.name, f"imported-{Path(file).stem}", fields | told)


def store_packed(dataset: Storage, modality: PackedModality, ids: Sequence[str]) -> tuple[str, int]:
    """Write what of a modality is not there yet, and commit the version that has it all: its folder and number."""
    identity = modality.identity
    written = write_features(
        dataset, identity, ids, ids_digest(ids), modality.lengths, modality.tokens, modality.stored
    )
    return identity.folder, written.number
