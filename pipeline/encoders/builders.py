"""Encoders that are code rather than a checkpoint: `tiny`, `patch`, and those of other packages.

A package adds one with an entry point in the group `pgm.encoders` that names a `Builder`; `--encoder MODALITY=NAME`, or
`NAME:SETTINGS`, then builds it. A modality PgM has never heard of gets, unless told otherwise, the encoder that says it
encodes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ...cache.errors import UserError
from ...plugins import installed_objects
from ..media import Media
from .base import FrozenEncoder
from .spec import EncoderSpec

GROUP = "pgm.encoders"


@dataclass(frozen=True)
class Builder:
    """An encoder by name. `modalities` are those it encodes, () any; what follows a colon in the source is its own to
    read.

    settle(spec, media), where given, completes a spec by looking at the media (a width that follows from the data),
    once and before anything is named.
    """

    name: str
    modalities: tuple[str, ...]
    summary: str
    build: Callable[[EncoderSpec], FrozenEncoder]
    settle: Callable[[EncoderSpec, Sequence[Media | None]], EncoderSpec] | None = None

    def check(self, modality: str) -> None:
        """Raises UserError where it does not encode this modality."""
        if self.modalities and modality not in self.modalities:
            raise UserError(f"{self.name} has encoders for {', '.join(self.modalities)}, not for {modality!r}.")

    def build_for(self, spec: EncoderSpec) -> FrozenEncoder:
        """The encoder. Raises UserError where it does not encode the spec's modality."""
        self.check(spec.modality)
        return self.build(spec)


@cache
def builders() -> dict[str, Builder]:
    """Every builder by name, ours and other packages'. Raises UserError for an entry point that is not one."""
    from .series import PATCH
    from .tiny import TINY

    return {builder.name: builder for builder in (TINY, PATCH, *installed_objects(GROUP, Builder))}


def builder_of(source: str) -> Builder | None:
    """The builder a source names, before a colon if there is one; None for a checkpoint."""
    return builders().get(source.split(":", 1)[0])
