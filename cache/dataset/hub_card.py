"""The page of a dataset on the Hub (README.md), written from what the dataset's version says."""

import json
from collections.abc import Callable
from typing import Any

from ..store import Features
from .dataset import CachedDataset

LicenceOf = Callable[[str, str | None], str]  # of an encoder, by its name and modality; of a dataset, by its name


def hub_card(dataset: CachedDataset, repository: str, licence_of: LicenceOf) -> str:
    """Markdown with the Hub's YAML header."""
    card, features = dataset.card, [dataset.features(store.identity.modality, f) for f, store in dataset.stores.items()]
    random = [one.identity.modality for one in features if is_random(one)]
    header = [
        "---",
        f"pretty_name: {json.dumps(f'{card.name}: frozen features')}",
        "tags: [pgm, features, multimodal]",
        "---",
        "",
    ]
    splits = ", ".join(f"{name} {count:,}" for name, count in card.splits.items())
    lines = [
        f"# {card.name}: features of frozen encoders",
        "",
        f"Task: {card.task}. {len(dataset.samples):,} samples" + (f" ({splits})." if splits else "."),
        *([f"Classes: {', '.join(card.classes)}.", ""] if card.classes else [""]),
        *([f"**Random weights**: the encoders of {', '.join(random)} were not pretrained.", ""] if random else []),
        "| modality | encoder | weights | licence | samples | failed | missing | tokens | width | stored as |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---|",
        *(row(one, licence_of) for one in features),
        "",
        f"Raw data: {told(card.source)} Licence of the raw data: {licence_of(card.name, None)}.",
        *([""] if card.notes else []),
        *(f"- {note}" for note in card.notes),
        "",
        "Tokens are packed Zarr v3 or HDF5 segments, each checked by the digest in its name. To use them:",
        "",
        f"    pgm cache pull {repository}",
        f"    pgm train --cached --dataset {card.name}",
        "",
    ]
    return "\n".join([*header, *lines])


def row(features: Features, licence_of: LicenceOf) -> str:
    """One modality's line."""
    identity, counts = features.identity, features.version.counts
    fields = identity.fields
    weights = "random" if is_random(features) else str(fields.get("revision") or fields.get("weights") or "")[:12]
    licence = "none: random weights" if is_random(features) else licence_of(identity.encoder, identity.modality)
    numbers = (f"{counts[name]:,}" for name in ("ok", "failed", "missing"))
    cells = (identity.modality, identity.encoder, weights, licence, *numbers, f"{features.version.tokens:,}")
    return "| " + " | ".join((*cells, str(features.dim), features.store.stored)) + " |"


def is_random(features: Features) -> bool:
    """Whether the encoder's weights were drawn, not trained."""
    return bool(features.identity.fields.get("random_weights"))


def told(source: Any) -> str:
    """Where the raw data came from."""
    known = "; ".join(f"{name} {value}" for name, value in source.items() if isinstance(value, str | int))
    return f"{known}." if known else "not recorded."
