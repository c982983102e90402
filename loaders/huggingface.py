"""A cached split as a Hugging Face `datasets.Dataset`: its table is ids, rows and labels, its tokens stay in the cache.

Tokens are gathered when samples are asked for, so that selecting, filtering and shuffling copy none of them. The
`datasets` library is optional: pip install 'pgm[hf]'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..cache.errors import UserError
from .dataset import FeatureDataset

if TYPE_CHECKING:
    import datasets

OWN = ("id", "split", "row", "label", "tokens")


def huggingface_dataset(dataset: FeatureDataset) -> datasets.Dataset:
    """The samples of a FeatureDataset with the columns id, row, label and what else their table has.

    Each comes with "tokens": {modality: (S, D) tensor}, so that `collate_padded` and `collate_packed` make batches of
    them. Labels of a classification are a ClassLabel. Raises UserError where `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            "A datasets.Dataset needs the datasets library, which is not installed: pip install 'pgm[hf]'"
        ) from None
    table = dataset.dataset.samples.take(pa.array(dataset.rows))
    card = dataset.dataset.card
    others = [name for name in table.column_names if name not in (*OWN, card.label_column)]
    columns: dict[str, Any] = {"id": table["id"], "row": dataset.rows, **{name: table[name] for name in others}}
    if dataset.labels is not None:
        columns["label"] = dataset.labels
    view = datasets.Dataset.from_dict(columns, split=datasets.NamedSplit(dataset.split) if dataset.split else None)
    if dataset.labels is not None and card.classes:
        view = view.cast_column("label", datasets.ClassLabel(names=list(card.classes)))
    return view.with_transform(WithTokens(dataset))


class WithTokens:
    """Adds the tokens to the columns of some samples, where these have the column row."""

    def __init__(self, dataset: FeatureDataset) -> None:
        self.dataset = dataset

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        if "row" not in columns:
            return columns
        return {**columns, "tokens": self.dataset.tokens(np.searchsorted(self.dataset.rows, columns["row"]))}
