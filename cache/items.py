"""items.parquet: one row a sample, saying where its tokens are, whether they are there, and why not.

A failed sample keeps its planned rows, as zeros, so that a later retry fills them in place; a missing one (the dataset
has no such modality for it) has no rows at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .durable import write_atomically
from .errors import CorruptStore
from .layout import Int64s, Layout

NAME = "items.parquet"
STATUSES = ("ok", "failed", "missing")
Status = Literal["ok", "failed", "missing"]


@dataclass(frozen=True, eq=False)
class Items:
    """N rows: id, offset, tokens, status, error (empty when ok) and digest of the source it came from (or empty)."""

    ids: Sequence[str]
    offset: Int64s
    tokens: Int64s
    status: Sequence[str]
    error: Sequence[str]
    source: Sequence[str]

    def __post_init__(self) -> None:
        columns = (self.ids, self.offset, self.tokens, self.status, self.error, self.source)
        if len({len(column) for column in columns}) != 1:
            raise ValueError(f"the columns of items have different lengths: {[len(column) for column in columns]}")
        if unknown := set(self.status) - set(STATUSES):
            raise ValueError(f"unknown status {sorted(unknown)}; known are {', '.join(STATUSES)}")

    @staticmethod
    def of(
        layout: Layout,
        ids: Sequence[str],
        failures: Mapping[int, str] | None = None,
        missing: Mapping[int, str] | None = None,
        source: Sequence[str] | None = None,
    ) -> "Items":
        """The items of a layout; `failures` and `missing` map a sample row to its reason."""
        status, error = ["ok"] * layout.samples, [""] * layout.samples
        for name, reasons in (("missing", missing or {}), ("failed", failures or {})):
            for row, reason in reasons.items():
                status[row], error[row] = name, reason
        return Items(ids, layout.offsets[:-1], layout.lengths, status, error, source or [""] * layout.samples)

    def counts(self) -> dict[str, int]:
        """Samples by status."""
        return {name: sum(status == name for status in self.status) for name in STATUSES}

    def write(self, folder: Path) -> None:
        """Write items.parquet, whole or not at all."""
        table = pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "offset": pa.array(self.offset),
                "tokens": pa.array(self.tokens),
                "status": pa.array(self.status, pa.string()),
                "error": pa.array(self.error, pa.string()),
                "source": pa.array(self.source, pa.string()),
            }
        )
        write_table(folder / NAME, table)

    @staticmethod
    def read(folder: Path) -> "Items":
        """Read items.parquet; CorruptStore when it is missing or unreadable."""
        table = read_table(folder / NAME)
        column = {name: table[name] for name in ("id", "offset", "tokens", "status", "error", "source")}
        return Items(
            column["id"].to_pylist(),
            column["offset"].to_numpy(),
            column["tokens"].to_numpy(),
            column["status"].to_pylist(),
            column["error"].to_pylist(),
            column["source"].to_pylist(),
        )


def read_status(folder: Path) -> npt.NDArray[np.str_]:
    """(N,) status of each sample, without the other columns."""
    codes = pc.index_in(read_table(folder / NAME, ["status"])["status"], pa.array(STATUSES))
    names: npt.NDArray[np.str_] = np.array(STATUSES)
    status: npt.NDArray[np.str_] = names[codes.to_numpy()]
    return status


def write_table(path: Path, table: pa.Table) -> None:
    """A Parquet file, whole or not at all; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """A Parquet table; CorruptStore when the file is missing or unreadable."""
    try:
        return pq.read_table(path, columns=columns)
    except FileNotFoundError as error:
        raise CorruptStore(f"{path} is missing; `pgm cache verify` says what else is") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptStore(f"{path} is not readable Parquet ({error}); see `pgm cache verify`") from error
