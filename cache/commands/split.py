"""`pgm cache split`: draw a named split of a dataset, or list those there are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from .completion import cached_datasets
from .printing import ROOT, AsJson, Features, plain, print_json, print_table

if TYPE_CHECKING:
    from ..dataset import CachedDataset
    from ..dataset.splits import NamedSplit

EXAMPLE = """Example: pgm cache split iemocap --by group --val 0.1 --test 0.2 --seed 0

Then: pgm train --cached --dataset iemocap --split group-val0.1-test0.2-seed0"""


def split_command(
    dataset: Annotated[str, typer.Argument(help="A cached dataset.", autocompletion=cached_datasets)],
    by: Annotated[
        str | None, typer.Option(help="group (whole videos, dialogues, ...), label (stratified) or random.")
    ] = None,
    val: Annotated[float, typer.Option(help="Share that validates.")] = 0.1,
    test: Annotated[
        float | None, typer.Option(help="Share that tests; without it the dataset's own test split stays.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same split.")] = 0,
    name: Annotated[str | None, typer.Option(help="The split's name; by default how it was drawn.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the named splits; draw none.")] = False,
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Draw train and val (and test) anew under a name, without touching the features."""
    from ..dataset import open_dataset
    from ..dataset.splits import make_split, named_splits

    found = open_dataset(features, dataset)
    if listed:
        print_splits(found, named_splits(found), as_json)
        return
    if by is None:
        raise UserError("How is the split to be drawn? Add --by group, --by label or --by random; --list lists them.")
    made = make_split(found, by, val, test, seed, name)  # type: ignore[arg-type]  # checked there
    told = described(found, made)
    if as_json:
        print_json(told)
        return
    typer.echo(f"{dataset}: split {made.name}, {how(made)} -> {told['file']}")
    for part, count in made.samples.items():
        groups = f" in {made.groups[part]:,} groups" if made.groups else ""
        kept = ", the dataset's own" if part == "test" and made.test is None else ""
        typer.echo(f"  {part:<5} {count:>9,} samples{groups}{kept}")
    typer.echo(f"Train on it: pgm train --cached --dataset {dataset} --split {made.name}")


def print_splits(dataset: "CachedDataset", splits: "list[NamedSplit]", as_json: bool) -> None:
    """One line a named split."""
    if as_json:
        print_json([described(dataset, made) for made in splits])
        return
    if not splits:
        typer.echo(f"{dataset.name} has no split but its own. Draw one: pgm cache split {dataset.name} --by random")
        return
    rows = [described(dataset, made) for made in splits]
    columns = ("name", "by", "seed", "train", "val", "test", "groups", "samples")
    table = [
        (
            row["name"],
            row["by"],
            str(row["seed"]),
            *(f"{row['samples'][part]:,}" for part in ("train", "val", "test")),
            plain(sum(row["groups"].values()) or None),
            "current" if row["current"] else "of an earlier list",
        )
        for row in rows
    ]
    print_table(columns, table)


def described(dataset: "CachedDataset", made: "NamedSplit") -> dict[str, Any]:
    """A split as JSON: how it was drawn, samples and groups a part, where it lies, whether it fits the dataset now."""
    from dataclasses import asdict

    from ..dataset.splits import table_url

    told = {"dataset": dataset.name, **asdict(made), "file": table_url(dataset, made.name)}
    told["current"] = told.pop("sample_ids") == dataset.version.sample_ids
    return told


def how(made: "NamedSplit") -> str:
    """`by group, seed 0`."""
    return f"{'at random' if made.by == 'random' else f'by {made.by}'}, seed {made.seed}"
