"""Where the rows of a segment lie: raw in a file, from some byte on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..storage.mapping import map_file
from .encoding import Array


@dataclass(frozen=True)
class Span:
    """`count` rows one after another in a file, from byte `offset` on."""

    path: Path
    offset: int
    count: int

    def map(self, dtype: np.dtype[np.generic], width: int) -> Array:
        """The rows (count, width), read-only, backed by the page cache."""
        if not self.count:
            return np.empty((0, width), dtype)
        content = map_file(self.path)
        return np.frombuffer(content, dtype, count=self.count * width, offset=self.offset).reshape(-1, width)
