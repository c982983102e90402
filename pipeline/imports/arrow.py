"""Columns of Parquet and Arrow tables: numbers and text, a list as a sample's vector, a list of lists as its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as is_type
from numpy.typing import NDArray
from pyarrow import feather

from .arrays import tidy
from .imported import PackedTokens


def read_parquet(path: Path) -> dict[str, Any]:
    """The columns of a Parquet file."""
    return _columns(pq.read_table(path))


def read_arrow(path: Path) -> dict[str, Any]:
    """The columns of an Arrow file: Feather, IPC file or IPC stream."""
    with path.open("rb") as file:
        stream = file.read(4) == b"\xff\xff\xff\xff"
    if stream:
        with pa.OSFile(str(path)) as source:
            return _columns(pa.ipc.open_stream(source).read_all())
    return _columns(feather.read_table(path))


def _columns(table: Any) -> dict[str, Any]:
    return {name: _column(table[name]) for name in table.column_names}


def _column(column: Any) -> Any:
    """Numbers and text as arrays, lists as (N, D), lists of lists as packed tokens; null is a missing sample."""
    kind = column.type
    if not is_list(kind):
        return tidy(column.to_pylist()) if is_type.is_string(kind) or column.null_count else column.to_numpy()
    flat, counts = _opened_list(column)
    if is_list(kind.value_type):
        flat, widths = _opened_list(flat)
    else:
        widths, counts = counts[counts > 0], np.minimum(counts, 1)
    if len(set(widths.tolist())) > 1:
        raise ValueError(f"lists of {widths.min()} to {widths.max()} numbers where every token needs as many")
    width = int(widths[0]) if len(widths) else 0
    tokens = flat.to_numpy(zero_copy_only=False).reshape(-1, max(1, width))
    if not is_list(kind.value_type) and counts.all():
        return tokens
    return PackedTokens(tokens, counts.astype(np.int64), {})


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of the lists."""
    return bool(is_type.is_list(kind) or is_type.is_large_list(kind) or is_type.is_fixed_size_list(kind))


def _opened_list(column: Any) -> tuple[Any, NDArray[np.int64]]:
    """The values inside lists, one after another, and how many each list held (0 for null)."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return array.flatten(), counts
