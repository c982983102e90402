"""Predictions as Parquet: one row a sample with its id, its target and what the task says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..tasks import Task, Views


def predictions_table(task: Task, ids: Sequence[str], views: Views, targets: NDArray[Any] | None) -> pa.Table:
    """Columns id, target (absent when unknown) and the task's."""
    columns: dict[str, Any] = {"id": list(ids)}
    if targets is not None:
        columns["target"] = targets
    for name, values in task.predictions(views).items():
        matrix = isinstance(values, np.ndarray) and values.ndim == 2
        columns[name] = rows_of(values) if matrix else values
    return pa.table(columns)


def rows_of(matrix: NDArray[np.floating]) -> pa.Array:
    """A (N, d) matrix as a column of lists of d numbers."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), matrix.shape[1])


def read_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """What `write_predictions` wrote: column name -> (N,), or (N, d) where a sample has a list."""
    table = pq.read_table(path)
    return {name: array_of(table[name]) for name in table.column_names}


def array_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column as numpy; lists of one size as rows."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy())
    return np.asarray(column.combine_chunks().flatten().to_numpy()).reshape(-1, column.type.list_size)


def write_predictions(path: Path, table: pa.Table) -> None:
    """Whole or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)
