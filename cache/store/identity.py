"""What a store holds, as content: two stores with equal identities hold the same numbers.

The digest hashes canonical JSON (sorted keys, no spaces, integral floats written as integers), so that neither the
order of a dict nor `16000` against `16000.0` makes a new store. Paths, times and worker counts have no place in it.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

ABSENT = "(absent)"


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON-able value; raises TypeError or ValueError for anything JSON cannot hold."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"an identity cannot hold {value}: JSON has no such number")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    raise TypeError(f"an identity holds plain JSON values, not {type(value).__name__}: {value!r}")


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names, so that a difference is one line a field."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def field_differences(here: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """One line for each field whose canonical values differ: `name: HERE here, ASKED asked for`."""
    left, right = flatten(here), flatten(asked)
    lines = []
    for name in sorted(left.keys() | right.keys()):
        a = canonical_json(left[name]) if name in left else ABSENT
        b = canonical_json(right[name]) if name in right else ABSENT
        if a != b:
            lines.append(f"{name}: {a} here, {b} asked for")
    return lines


@dataclass(frozen=True)
class Identity:
    """Everything that decides a store's numbers.

    modality: "text", "vision", "audio".
    encoder: its hub id or local name, for people ("google-t5/t5-base").
    fields: JSON-able values: weights digest, processor, layer, pooling, dtypes, decoding. Of the samples nothing.
    """

    modality: str
    encoder: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The identity as it stands in store.json."""
        return {"modality": self.modality, "encoder": self.encoder, "fields": _plain(self.fields)}

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> "Identity":
        """The inverse of `as_dict`."""
        return Identity(value["modality"], value["encoder"], dict(value["fields"]))

    @cached_property
    def whole_digest(self) -> str:
        """The SHA-256 of the canonical JSON, 64 hex digits: what segments are named by."""
        return hashlib.sha256(canonical_json(self.as_dict()).encode()).hexdigest()

    @property
    def digest(self) -> str:
        """Its first eight hex digits: what people type."""
        return self.whole_digest[:8]

    @property
    def folder(self) -> str:
        """The store's folder name: modality, encoder and digest, as in `text--t5-base--3f9c2a1b`."""
        return f"{slug(self.modality)}--{slug(self.encoder)}--{self.digest}"

    def difference(self, other: "Identity") -> str:
        """What `self` (here) and `other` (asked for) disagree in, one line a field; empty when they agree."""
        return "\n".join(field_differences(self.as_dict(), other.as_dict()))


def slug(name: str) -> str:
    """The last path component in characters that every file system takes."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._]+", "-", last)).strip("-.") or "unnamed"
