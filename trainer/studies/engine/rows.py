"""What stands in a table: rows, each a method with its switches, and the row all others are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...data.missing import Missing
    from .plan import Measurement


@dataclass(frozen=True)
class Row:
    """One line: its name, the method, and the settings that differ from the table's own.

    missing: what is taken away from its training samples. measurement: what is measured of its runs after training.
    against: the label of the row it is compared with, "" for none, None for the table's reference.
    """

    label: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: Missing | None = None
    measurement: Measurement | None = None
    against: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """A table on a dataset.

    reference: the label of the row the others are compared with, or what stands for it where rows say it themselves.
    paper: the number of the paper's table, "" for none. notes: what a reader must know beforehand.

    A study that needs more than rows makes a subclass.
    """

    title: str
    rows: tuple[Row, ...]
    reference: str
    paper: str = ""
    notes: tuple[str, ...] = ()
