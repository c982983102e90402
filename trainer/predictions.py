"""Predictions as Parquet: one row a sample with its id, its target and what the task says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .tasks import Task, Views


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


def write_predictions(path: Path, table: pa.Table) -> None:
    """Whole or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)
