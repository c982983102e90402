"""What a trainer must know of a dataset besides its samples: the task, its classes, its metrics, where it came from.

The task is a word here, or the import path of somebody's class: what it means is the trainer's to say.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import CorruptStore, UserError

TASK = r"[A-Za-z][\w-]*|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"  # a word, or package.module:Class
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetCard:
    """task: a word, or package.module:Class. classes: names in label order, empty where labels are scores. metrics: in
    the order they are printed.

    splits: samples a split. source: where the raw data came from. notes: what a reader of results must know.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    label_column: str = "label"
    splits: Mapping[str, int] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(TASK, self.task):
            raise UserError(f"A task is a word, such as classification, or package.module:Class, not {self.task!r}.")

    def as_dict(self) -> dict[str, Any]:
        """The card as JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(value: Mapping[str, Any], where: str) -> "DatasetCard":
        """The inverse of `as_dict`; `where` names the file in the CorruptStore of one that is not whole."""
        try:
            card = {item.name: value[item.name] for item in fields(DatasetCard)}
        except KeyError as error:
            raise CorruptStore(f"the card in {where} lacks {error}; run `pgm cache verify`") from error
        frozen: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in card.items()}
        return DatasetCard(**frozen)
