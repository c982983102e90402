"""`pgm import`: its options, and how files become a dataset. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...cache.errors import NotFound, UserError
from ..commands import FeaturesOption

if TYPE_CHECKING:
    from ...cache.dataset import CachedDataset
    from ...cache.segment import Stored
    from .imported import Imported

MAPPING = "Files of no known layout"
EXAMPLE = """Example:

    pgm import mosi unaligned_50.pkl

    pgm import wikipedia raw_features.mat

    pgm import mydata x.npz --modality text --tokens bert --lengths text=sizes --modality audio --tokens mfcc --labels y

Two keys with a comma are put one below the other: --tokens T_tr,T_te (train, then test, when no --split is given).
Importing the same file again writes nothing; one that has grown, what is new."""


def import_command(
    dataset: Annotated[str, typer.Argument(help="The name to give; a known one (mosi, meld, ...) brings its task.")],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help=".npz, .npy, .mat, HDF5, .csd, safetensors, Parquet, Arrow, a pickle, or folders."
        ),
    ],
    layout: Annotated[
        str | None,
        typer.Option(help="mmsa, mult, mmgcn, csd, wikipedia, mosi, crossmodal, per_sample, ...; else found."),
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(help="A modality; give --tokens right after it. Repeatable.")
    ] = None,
    tokens: Annotated[
        list[str] | None,
        typer.Option(help="Its array: (N, D), (N, S, D) or a list of (S, D).", rich_help_panel=MAPPING),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="The array of labels, or a file: .csv with id, label, split.")
    ] = None,
    lengths: Annotated[
        list[str] | None,
        typer.Option(
            help="[MODALITY=]KEY: real tokens a sample, where S is padded at the end. Repeatable.",
            rich_help_panel=MAPPING,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The array of train, val and test; for csd a table of them.")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option(help="Which split, where a file has several, as MOSI's split_bclstm.")
    ] = None,
    ids: Annotated[str | None, typer.Option(help="The array of sample ids.", rich_help_panel=MAPPING)] = None,
    group: Annotated[
        str | None, typer.Option(help="The array of videos or dialogues, never torn apart.", rich_help_panel=MAPPING)
    ] = None,
    strip_padding: Annotated[
        bool, typer.Option("--strip-padding", help="Drop frames of zeros at the padded end.", rich_help_panel=MAPPING)
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Make NaN and infinities 0, and count them.", rich_help_panel=MAPPING)
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(help="classification, emotion, sentiment or retrieval; by default the dataset's own."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="What rows are compared on, as auroc or balanced_accuracy; else the task's."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="float16, float32 or int8; by default float16 stays and all else is float32.")
    ] = None,
    features: FeaturesOption = "features",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Put features somebody already extracted into the cache, with ids, splits and labels."""
    from ...cache.storage import storage_at
    from ..engine.options import stored_type
    from .containers import opened
    from .finish import chosen_task, finished, write_imported
    from .imported import Options
    from .layouts import layout_for
    from .mapping import Request, mapped

    # A place that cannot be had is told before the files are read.
    storage_at(features).names()
    wanted = chosen_task(dataset, task)
    names = tuple(modality or ())
    with ExitStack() as stack:
        sources = [stack.enter_context(opened(path)) for path in files]
        if tokens:
            if layout is not None:
                raise UserError(
                    "--layout reads a known file, --tokens names arrays of an unknown one; give one of them."
                )
            if split_column is not None:
                raise UserError("--split-column chooses among the splits of a known layout; here it is --split KEY.")
            request = Request(
                paired(names, tokens),
                needed(labels),
                paired_lengths(names, lengths or []),
                split,
                ids,
                group,
                strip_padding,
                clean,
            )
            kind, imported = "mapping", mapped(sources, request)
        else:
            found = layout_for(sources, layout)
            unused: dict[str, Any] = {"--ids": ids, "--group": group, "--lengths": lengths}
            unused |= {"--strip-padding": strip_padding, "--clean": clean}
            if found.name not in ("per_sample", "hydraulic"):
                unused["--labels"] = labels
            if found.name != "csd":
                unused["--split"] = split
            if given := [option for option, value in unused.items() if value]:
                raise UserError(
                    f"The layout {found.name} says itself what {' and '.join(given)} would; leave it out, or map the "
                    "arrays yourself with --modality and --tokens."
                )
            options = Options(path_of(labels), path_of(split), split_column, names, wanted)
            kind, imported = found.name, found.read(sources, options)
        imported = finished(dataset, replace(imported, metric=metric or imported.metric), wanted)
        asked = None if store is None else stored_type(store)
        written = write_imported(features, dataset, imported, asked)
    report(written, kind, imported, asked, as_json)


def paired(modalities: Sequence[str], tokens: Sequence[str]) -> dict[str, str]:
    """Modality -> its keys. Raises UserError where there are not as many, or one comes twice."""
    if len(modalities) != len(tokens):
        raise UserError(
            f"There are {len(modalities)} --modality and {len(tokens)} --tokens; each modality has one array."
        )
    if len(set(modalities)) != len(modalities):
        raise UserError(f"--modality {', '.join(modalities)}: one of them comes twice.")
    return dict(zip(modalities, tokens, strict=True))


def paired_lengths(modalities: Sequence[str], lengths: Sequence[str]) -> dict[str, str]:
    """Modality -> the key of its lengths; keys without a modality go with the modalities in their order."""
    named = dict(text.split("=", 1) for text in lengths if "=" in text)
    if unknown := sorted(set(named) - set(modalities)):
        raise NotFound(f"--lengths {unknown[0]}={named[unknown[0]]}: there is no --modality {unknown[0]}.")
    bare, open_to = [text for text in lengths if "=" not in text], [m for m in modalities if m not in named]
    if bare and len(bare) != len(open_to):
        raise UserError(
            f"{len(bare)} --lengths for the modalities {', '.join(open_to)}: "
            f"say whose with --lengths MODALITY={bare[0]}."
        )
    return named | dict(zip(open_to, bare, strict=False))


def needed(labels: str | None) -> str:
    """The labels' key, which a mapping cannot do without."""
    if labels is None:
        raise UserError(
            "Which array holds the labels? Give --labels KEY, or --labels FILE with a label for each sample."
        )
    return labels


def path_of(value: str | None) -> Path | None:
    """An option that names a file in some layouts."""
    return None if value is None else Path(value)


def report(dataset: CachedDataset, layout: str, imported: Imported, asked: Stored | None, as_json: bool) -> None:
    """What is in the cache now; notes and warnings on stderr."""
    import numpy as np

    from ...cache.dataset.card import SPLITS

    for note in imported.notes:
        print(f"note: {note}", file=sys.stderr)
    for warning in imported.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    card = dataset.card
    splits = {name: card.splits[name] for name in SPLITS if name in card.splits}
    summary: dict[str, Any] = {
        "dataset": dataset.name,
        "layout": layout,
        "task": card.task,
        "classes": list(card.classes),
        "samples": len(imported.labels),
        "splits": splits,
        "modalities": {
            name: {
                "tokens": int(one.lengths.sum()),
                "dim": int(one.tokens.shape[1]),
                "stored": asked or one.tokens.dtype.name,
                "missing": int(np.count_nonzero(one.lengths == 0)),
                "padding": one.source.get("padding"),
            }
            for name, one in imported.modalities.items()
        },
        "notes": list(imported.notes),
        "warnings": list(imported.warnings),
        "folder": dataset.storage.url,
    }
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    told = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    told = f"{summary['samples']:,} samples ({told}), {card.task}, layout {layout}"
    print(f"{dataset.name}: {told} -> {dataset.storage.url}")
    for name, one in summary["modalities"].items():
        missing = f", missing in {one['missing']:,} samples" if one["missing"] else ""
        padding = f", padded at the {one['padding']}" if one["padding"] else ""
        print(f"  {name}: {one['tokens']:,} tokens of {one['dim']}, {one['stored']}{padding}{missing}")
