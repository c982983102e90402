"""What the shell offers after Tab for a method and for a run."""

from __future__ import annotations

import os

import typer


def methods(incomplete: str) -> list[tuple[str, str]]:
    """Names with a line each: ours, and those of installed packages."""
    from ..methods.registry import listed

    return [(name, summary) for name, summary in listed().items() if name.startswith(incomplete)]


def kept_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of the runs in --runs, PGM_RUNS or ./runs; none where that cannot be read, as Tab prints no errors."""
    from ...cache.errors import PgMError
    from .home import known_runs, runs_place

    place = context.params.get("runs") or os.environ.get("PGM_RUNS") or "runs"
    try:
        return [name for name in known_runs(runs_place(place)) if name.startswith(incomplete)]
    except (PgMError, OSError):
        return []
