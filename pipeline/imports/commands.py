"""`pgm import`: its options, and how they become arrays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ...cache.errors import UserError

EXAMPLE = """Example:

    pgm import mosi mosi_utterance.npz --task sentiment --labels label_sentiment --split split_bclstm --ids ids
        --group video_id --modality text --tokens text --modality audio --tokens audio --modality vision --tokens video

Two keys with a comma are put one below the other: --tokens T_tr,T_te (train, then test, when no --split is given)."""


def import_command(
    dataset: Annotated[str, typer.Argument(help="The name of the dataset to make.")],
    file: Annotated[Path, typer.Argument(help="An .npz or .mat file.")],
    modality: Annotated[list[str], typer.Option(help="A modality; give --tokens right after it. Repeatable.")],
    tokens: Annotated[list[str], typer.Option(help="Its array, (N, D) or (N, S, D). One for each --modality.")],
    labels: Annotated[str, typer.Option(help="The array of labels.")],
    lengths: Annotated[
        list[str] | None, typer.Option(help="MODALITY=KEY: real tokens a sample, where S is padded. Repeatable.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The array of train, val and test.")] = None,
    ids: Annotated[str | None, typer.Option(help="The array of sample ids.")] = None,
    group: Annotated[str | None, typer.Option(help="The array of videos or dialogues.")] = None,
    task: Annotated[str, typer.Option(help="classification, emotion, sentiment or retrieval.")] = "classification",
    features: Annotated[
        Path, typer.Option("--features", envvar="PGM_FEATURES", help="Where the feature stores lie.")
    ] = Path("features"),
) -> None:
    """Put features somebody already extracted into the cache, with ids, splits and labels."""
    import numpy as np

    from .arrays import METRICS, ArrayModality, import_arrays
    from .files import column, read_arrays, source_of

    if task not in METRICS:
        raise UserError(f"--task is one of {', '.join(METRICS)}, not {task!r}.")
    if len(modality) != len(tokens):
        raise UserError(
            f"There are {len(modality)} --modality and {len(tokens)} --tokens; each modality has one array."
        )
    padded = dict(text.split("=", 1) for text in lengths or [] if "=" in text)
    with read_arrays(file) as arrays:

        def read(key: str | None) -> Any:
            return None if key is None else np.squeeze(column(arrays, key, file))

        found = {
            name: ArrayModality(column(arrays, key, file), read(padded.get(name)), source_of(file, key))
            for name, key in zip(modality, tokens, strict=True)
        }
        target, given, names, groups = read(labels), read(split), read(ids), read(group)
        rows = [len(arrays[key]) for key in tokens[0].split(",")]
    notes: list[str] = []
    splits = made_splits(rows, notes) if given is None else given
    known: dict[str, Any] = {"ids": listed(names), "groups": listed(groups), "notes": notes}
    folder = import_arrays(features, dataset, found, target, list(splits), task=task, **known)  # type: ignore[arg-type]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{dataset}: {len(target):,} samples, {', '.join(found)} -> {folder}", file=sys.stderr)


def listed(values: Any) -> list[str] | None:
    """An array of ids as a list of strings."""
    return None if values is None else [str(value) for value in values]


def made_splits(rows: list[int], notes: list[str]) -> list[str]:
    """Two stacked arrays are train and test; one is split 80 to 20 by a fixed seed, and that is said."""
    import numpy as np

    if len(rows) == 2:
        return ["train"] * rows[0] + ["test"] * rows[1]
    if len(rows) != 1:
        raise UserError(f"{len(rows)} stacked arrays: say which rows are train and test with --split KEY.")
    test = np.random.default_rng(0).permutation(rows[0]) < rows[0] // 5
    notes.append("No split was given: a fifth of the samples, drawn with seed 0, is the test split.")
    return ["test" if chosen else "train" for chosen in test]
