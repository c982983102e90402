"""`pgm extract`: its options, and how they become a request. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cache.errors import UserError
from ..cache.nearest import did_you_mean

if TYPE_CHECKING:
    from .collection import Collection
    from .encoders import EncoderSpec
    from .engine.events import Finished
    from .extraction import ExtractOptions

FeaturesOption = Annotated[
    str,
    typer.Option(
        "--features", envvar="PGM_FEATURES", help="Where the feature stores lie: a folder or a URL.", show_default=True
    ),
]
RootOption = Annotated[Path | None, typer.Option(help="The folder of the dataset's raw media.")]
WorkersOption = Annotated[
    int | None, typer.Option(help="Dask worker processes; by default one a GPU, else one a core.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; progress stays on stderr.")]

TABLE_PANEL = "A table of your own"
EXAMPLE = """Example:

    pgm extract digits

    pgm extract food101 --root ~/data/upmcfood101 --pool tokens:16

    pgm extract av_mnist --root ~/data --limit 6000 --encoders tiny

    pgm extract recipes.csv --text-column title --image-column photo --label-column dish --encoders clip

    pgm extract rides.csv --series-column imu=imu_file --series-column wheel=wheel_file --label-column terrain

    pgm extract digits --features s3://bucket/features

Rerunning the same command continues where it stopped and encodes what is new or changed, nothing else."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep what is made here from Python's collector of cycles, now and later: there are none among the sources of a
    dataset, and going through a million of them again and again took a tenth of a rerun (11.4 against 10.2 s)."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def extract_command(
    dataset: Annotated[
        str | None,
        typer.Argument(help="A dataset (see `pgm datasets ls`), or a table of yours: .csv, .tsv, .jsonl, .parquet."),
    ] = None,
    root: RootOption = None,
    features: FeaturesOption = "features",
    encoders: Annotated[
        str | None,
        typer.Option(
            help="All modalities: paper (T5-base, CLIP, AST; the default but for digits), clip, tiny, or a name of "
            "`pgm encoders ls`."
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="MODALITY=ENCODER: a hub id, a local folder, or a name. Repeatable."),
    ] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Only this modality. Repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many samples, as a version of its own.")] = None,
    format: Annotated[str, typer.Option(help="zarr or hdf5.")] = "zarr",
    codec: Annotated[str, typer.Option(help="none, zstd or lz4 (zarr only).")] = "none",
    store: Annotated[str, typer.Option(help="float16, float32 or int8.")] = "float16",
    pool: Annotated[
        list[str] | None, typer.Option(help="[MODALITY=]none, mean, cls, last, sentence or tokens:K. Repeatable.")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="[MODALITY=]index of the hidden states. Repeatable.")] = None,
    revision: Annotated[list[str] | None, typer.Option(help="MODALITY=branch, tag or commit. Repeatable.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Cut texts to so many tokens.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What stands before every text, as 'query: ' for E5.")] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames taken of a video, evenly spaced: 1, or what an encoder of clips takes.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Forward pass: auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the encoders.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Samples a forward pass.")] = None,
    executor: Annotated[str, typer.Option(help="dask or serial.")] = "dask",
    workers: WorkersOption = None,
    decoders: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that decode pictures and sounds beside each worker. Default: none beside a CPU, up to 8 "
            "beside a GPU.",
        ),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="A running Dask scheduler: tcp://host:port.")] = None,
    scheduler_file: Annotated[str | None, typer.Option(help="The same, by its --scheduler-file.")] = None,
    max_failures: Annotated[float, typer.Option(help="Share of bad items above which it stops.")] = 0.01,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try items that failed again.")] = False,
    check_sources: Annotated[
        bool, typer.Option("--check-sources", help="Read all media again; else unchanged size and times will do.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate from a few samples; write nothing.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Of a table: the texts.", rich_help_panel=TABLE_PANEL)] = None,
    image_column: Annotated[str | None, typer.Option(help="Paths of images.", rich_help_panel=TABLE_PANEL)] = None,
    audio_column: Annotated[str | None, typer.Option(help="Paths of sounds.", rich_help_panel=TABLE_PANEL)] = None,
    video_column: Annotated[
        str | None, typer.Option(help="Paths of videos: frames and sound track.", rich_help_panel=TABLE_PANEL)
    ] = None,
    series_column: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]paths of .npy, CSV or Parquet series. Repeatable.", rich_help_panel=TABLE_PANEL),
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="Classes or scores.", rich_help_panel=TABLE_PANEL)] = None,
    split_column: Annotated[str | None, typer.Option(help="train, val, test.", rich_help_panel=TABLE_PANEL)] = None,
    id_column: Annotated[str | None, typer.Option(help="Unique sample ids.", rich_help_panel=TABLE_PANEL)] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Samples a split must not tear apart.", rich_help_panel=TABLE_PANEL)
    ] = None,
    task: Annotated[
        str, typer.Option(help="classification, emotion, sentiment or retrieval.", rich_help_panel=TABLE_PANEL)
    ] = "classification",
    name: Annotated[
        str | None, typer.Option(help="The dataset's name; by default the table's.", rich_help_panel=TABLE_PANEL)
    ] = None,
    hf: Annotated[
        str | None, typer.Option(help="A hub dataset, through the datasets library.", rich_help_panel=TABLE_PANEL)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the frozen encoders once over DATASET and keep their tokens in the cache."""
    from ..cache.storage import storage_at
    from .engine.options import store_options

    # A place that cannot be had is told before the media are read.
    storage_at(features).names()
    common = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "frames": frames,
        "compute": choice("--dtype", dtype, ("auto", "float32", "bfloat16", "float16")),
        "device": choice("--device", device, ("auto", "cpu", "cuda")),
        "compile": compile,
        "batch_size": batch_size,
    }
    options_of_store = store_options(format, codec, store)
    columns = {
        "text": text_column,
        "image": image_column,
        "audio": audio_column,
        "video": video_column,
        "label": label_column,
        "split": split_column,
        "id": id_column,
        "group": group_column,
    }
    with uncollected():
        collection = load_any(dataset, root, {**columns, "series": series_columns(series_column or [])}, name, task, hf)
    # torch and transformers take seconds to import: a dataset that is not there is told before.
    from ..console import ExtractionDisplay
    from .extraction import ExtractOptions, extract

    if limit is not None:
        collection = collection.limited(limit)
    if modality:
        collection = collection.only(modality)
    per_modality = {"source": encoder or [], "pooling": pool or [], "layer": layer or [], "revision": revision or []}
    options = ExtractOptions(
        encoders=encoder_specs(sources(collection, encoders), per_modality, common),
        store=options_of_store,
        executor=executor,
        workers=workers,
        decoders=decoders,
        scheduler=scheduler,
        scheduler_file=scheduler_file,
        max_failures=max_failures,
        retry_failed=retry_failed,
        check_sources=check_sources,
    )
    if dry_run:
        for line in collection.told:
            print(line, file=sys.stderr)
        show_forecast(collection, features, options, as_json)
        return
    with ExtractionDisplay() as display:
        finished = extract(collection, features, options, display)
        display.summary(finished)
    if as_json:
        json.dump(as_object(collection.card.name, finished), sys.stdout, indent=1)
        print()


def load_any(
    dataset: str | None,
    root: Path | None,
    columns: Mapping[str, Any],
    name: str | None,
    task: str,
    hf: str | None,
) -> Collection:
    """The samples DATASET or --hf names: a known dataset, a table of the user's, a dataset of the hub."""
    from .datasets import load_dataset
    from .datasets.home import data_home
    from .datasets.hub import default_name, fetch
    from .datasets.table import Columns, is_table, load_table

    chosen = Columns(**columns)
    if hf is not None:
        if chosen.series:
            raise UserError(
                "--series-column names files beside a table of yours; --hf has none. Save them as files first."
            )
        table = fetch(hf, chosen, data_home())
        return load_table(table, replace(chosen, split=chosen.split or "split"), None, name or default_name(hf), task)
    if dataset is None:
        raise UserError("Which dataset? For example: pgm extract digits. `pgm extract --help` shows more.")
    if is_table(dataset):
        return load_table(Path(dataset), chosen, root, name, task)
    if given := [f"--{role}-column" for role, column in columns.items() if column]:
        raise UserError(
            f"{', '.join(given)} describe a table of yours, and {dataset!r} is not one (.csv, .parquet ...)."
        )
    return load_dataset(dataset, root)


def show_forecast(collection: Collection, features: str, options: ExtractOptions, as_json: bool) -> None:
    """Print what extraction would take. Raises UserError where the disk is too small for it."""
    from ..cache.storage import storage_at
    from ..console import forecast_table, in_bytes
    from ..workers import default_workers
    from .dry_run import forecast
    from .encoders import specs_for

    workers = 1 if options.executor == "serial" else options.workers or default_workers()
    dataset = storage_at(features).under(collection.card.name)
    specs = specs_for(collection, options.encoders, options.preset)
    rows = forecast(collection, dataset, specs, options.store, workers, options.decoders)
    if as_json:
        modalities = {row.modality: {k: v for k, v in asdict(row).items() if k != "modality"} for row in rows}
        print(json.dumps({"dataset": collection.card.name, "workers": workers, "modalities": modalities}, indent=1))
    else:
        forecast_table(rows, workers)
    if not all(row.fits for row in rows):
        needed, free = sum(row.bytes for row in rows), rows[0].free or 0
        raise UserError(
            f"This needs about {needed:,} bytes ({in_bytes(needed)}) under {features}, and {free:,} ({in_bytes(free)}) "
            "are free. Make room, choose another --features folder, or pool tokens with --pool tokens:16."
        )


def as_object(dataset: str, finished: Sequence[Finished]) -> dict[str, Any]:
    """What `pgm extract --json` prints."""
    return {
        "dataset": dataset,
        "modalities": {
            event.modality: {key: value for key, value in asdict(event).items() if key != "modality"}
            for event in finished
        },
    }


def choice(option: str, value: str, known: Sequence[str]) -> str:
    """`value`, or a UserError naming what `option` takes."""
    if value not in known:
        raise UserError(f"{option} {value} is not known: use {', '.join(known[:-1])} or {known[-1]}.")
    return value


def series_columns(options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(modality, column) of each `[NAME=]COLUMN`; without a name the modality is called as the column."""
    pairs = tuple((name, column) if column else (name, name) for name, _, column in (o.partition("=") for o in options))
    if taken := {name for name, _ in pairs} & {"text", "vision", "audio"}:
        raise UserError(f"--series-column {taken.pop()}=...: that is another kind of modality. Name the series else.")
    return pairs


def sources(collection: Collection, preset: str | None) -> dict[str, str]:
    """The encoder each modality gets where `--encoder` names none."""
    from .encoders.presets import default_preset, source_of

    return {m: source_of(preset or default_preset(collection.card.name), m) for m in collection.media}


def encoder_specs(
    sources: Mapping[str, str], per_modality: Mapping[str, Sequence[str]], common: Mapping[str, Any]
) -> dict[str, EncoderSpec]:
    """One spec a modality from repeated `[MODALITY=]VALUE` options; a bare value goes to every modality."""
    from .encoders import EncoderSpec
    from .encoders.presets import PRESETS, source_of

    modalities = list(sources)
    texts_alone = ("prompt", "max_tokens")
    settings: dict[str, dict[str, Any]] = {
        modality: {
            "source": source,
            **{key: value for key, value in common.items() if modality == "text" or key not in texts_alone},
        }
        for modality, source in sources.items()
    }
    for field, values in per_modality.items():
        for text in values:
            modality, separator, value = text.partition("=")
            named = [modality] if separator else list(modalities)
            if separator and modality not in settings:
                hint = did_you_mean(modality, modalities)
                raise UserError(
                    f"{text!r} names the modality {modality!r}; the dataset has {', '.join(modalities)}.{hint}"
                )
            if not separator and field in ("source", "revision"):
                raise UserError(f"{text!r} needs a modality: for example {modalities[0]}={text}")
            for name in named:
                preset = field == "source" and value in PRESETS
                settings[name][field] = (
                    source_of(value, name) if preset else _typed(field, value if separator else text)
                )
    return {modality: EncoderSpec(modality, **values) for modality, values in settings.items()}


def _typed(field: str, value: str) -> Any:
    if field != "layer":
        return value
    try:
        return int(value)
    except ValueError:
        raise UserError(f"--layer takes a number (0 is the embeddings, -1 the last layer), not {value!r}.") from None
