"""Which samples have which modality: boolean columns `has_<modality>` of the samples.

True where the dataset has a source for the sample, whether or not it could be read: what came of it stands as the
status in the store's versions.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PREFIX = "has_"
Present = Mapping[str, npt.ArrayLike]


def with_presence(samples: pa.Table, present: Present, earlier: pa.Table | None = None) -> pa.Table:
    """`samples` with a column has_<modality> (N,) bool for each of `present`, sorted by name after the others.

    earlier: the table these samples had before. Where it lists the same ids, its columns of other modalities stay, so
    that modalities extracted one after another leave what they leave together.
    """
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    if earlier is not None and earlier["id"].equals(samples["id"]):
        columns = {name: earlier[name] for name in _columns(earlier)}
    columns |= {PREFIX + modality: pa.array(np.asarray(there, bool)) for modality, there in present.items()}
    table = samples.drop_columns([name for name in columns if name in samples.column_names])
    for name in sorted(columns):
        table = table.append_column(name, columns[name])
    return table


def presence(samples: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
    """Modality -> (N,) whether the sample has it; empty for datasets written before there were such columns."""
    return {name.removeprefix(PREFIX): samples[name].to_numpy() for name in _columns(samples)}


def _columns(samples: pa.Table) -> list[str]:
    return [item.name for item in samples.schema if item.name.startswith(PREFIX) and pa.types.is_boolean(item.type)]
