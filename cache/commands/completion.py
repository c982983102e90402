"""What the shell offers after Tab for a cached dataset: the names that lie where --features says."""

from __future__ import annotations

import os

import typer


def cached_datasets(context: typer.Context, incomplete: str) -> list[str]:
    """Names below --features, PGM_FEATURES or ./features; none where that cannot be read, as Tab prints no errors."""
    from ..dataset import list_datasets
    from ..errors import PgMError

    place = context.params.get("features") or os.environ.get("PGM_FEATURES") or "features"
    try:
        return [name for name in list_datasets(place) if name.startswith(incomplete)]
    except (PgMError, OSError):
        return []
