"""What `pgm runs` prints: every run on a line, one run whole, two runs against each other."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ...cache.store.identity import flatten
from .display import cell, numbers, results_table
from .files import read_json
from .home import Root
from .runs import ENVIRONMENT, Run, difference, list_runs

WIDE = 160


def listed(root: Root, dataset: str | None) -> list[dict[str, Any]]:
    """A record a run: what it was and what came out, unfinished ones included."""
    found = []
    for run in list_runs(root):
        config = run.config
        if dataset is not None and config["dataset"] != dataset:
            continue
        record = {
            "run": run.id,
            "dataset": config["dataset"],
            "method": config["method"]["name"],
            "seed": config["seed"],
            "state": "finished" if run.finished else "unfinished",
        }
        if run.finished:
            result = run.result
            record |= {name: result[name] for name in ("val", "test", "parameters", "seconds")}
        found.append(record)
    return found


def print_runs(root: Root, records: list[dict[str, Any]]) -> None:
    """The runs as a table on stdout."""
    if not records:
        Console(stderr=True, soft_wrap=True).print(f"No runs in {root}; pgm train makes one.")
        return
    table = Table("run", "dataset", "method", "seed", "state", "test", "seconds")
    for record in records:
        first = dict(list(record.get("test", {}).items())[:2])
        seconds = f"{record['seconds']:.1f}" if "seconds" in record else ""
        texts = (record["run"], record["dataset"], record["method"], str(record["seed"]), record["state"])
        table.add_row(*texts, numbers(first), seconds)
    console().print(table)


def whole(run: Run) -> dict[str, Any]:
    """Everything a run's JSON files say."""
    environment = run.path / ENVIRONMENT
    found: dict[str, Any] = {"run": run.id, "folder": str(run.path), "config": run.config}
    found["environment"] = read_json(environment) if environment.exists() else {}
    found["result"] = run.result if run.finished else None
    found["last_epoch"] = run.metrics[-1] if run.metrics else None
    return found


def print_run(found: dict[str, Any]) -> None:
    """A run, readable, on stdout."""
    out = console()
    result = found["result"]
    out.print(f"run {found['run']} in {found['folder']}: {'finished' if result else 'unfinished'}")
    for name in ("config", "environment"):
        out.print(f"\n{name}")
        for key, value in flatten(found[name]).items():
            out.print(f"  {key}: {value}", markup=False)
    if result is None:
        out.print("\nThe same pgm train command continues it.")
        return
    columns = {"val": result["val"], "test": result["test"], **result["floors"]}
    out.print(results_table("\nresult", columns))
    speed = f"{result['samples_per_second']:,.0f} samples/s, {result['waiting']:.2%} waiting for data"
    selected = ", ".join(f"{stage} {epoch}" for stage, epoch in result["epochs"].items())
    out.print(f"{result['parameters']:,} parameters; {result['seconds']:.1f} s; {speed}; selected epochs: {selected}")


def compared(one: Run, other: Run) -> dict[str, Any]:
    """Configuration fields that differ, and the test metrics of both where both are finished."""
    found: dict[str, Any] = {"runs": [one.id, other.id], "differences": difference(one, other)}
    if one.finished and other.finished:
        found["test"] = {run.id: run.test for run in (one, other)}
    return found


def print_difference(found: dict[str, Any]) -> None:
    """Two runs against each other, on stdout."""
    out = console()
    one, other = found["runs"]
    lines = [line.replace(" here,", f" in {one},").replace("asked for", f"in {other}") for line in found["differences"]]
    out.print("\n".join(lines) if lines else "The same configuration.", markup=False)
    if "test" in found:
        names = list(dict.fromkeys(name for row in found["test"].values() for name in row))
        table = Table("", one, other, "difference", title="test", title_justify="left")
        for name in names:
            a, b = (found["test"][run].get(name) for run in (one, other))
            gap = f"{b - a:+.4f}" if a is not None and b is not None else ""
            table.add_row(name, cell(a), cell(b), gap)
        out.print(table)


def console() -> Console:
    """stdout; off a terminal wide enough for every column."""
    out = Console(soft_wrap=True, highlight=False)
    return out if out.is_terminal else Console(soft_wrap=True, highlight=False, width=WIDE)
