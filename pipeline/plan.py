"""The plan of one modality: which store, how many tokens each sample has, where every shard begins. A value, fixed
before work.

Every source is read once while planning: its digest goes beside its features, and a source that is missing or
unreadable is known before the encoder runs. Shards are sized by the dataset alone, never by the worker count, so that
the bytes on disk are the same however many workers wrote them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from ..cache import Identity, Items, Layout, shard_tokens_for
from ..cache.errors import UserError
from ..cache.identity import ids_digest
from ..cache.layout import Codec, Format, Stored
from .collection import Collection
from .decode import DecodeError, readable
from .encoders import EncoderSpec, FrozenEncoder
from .media import FileMedia, Media

SMALLEST_SHARD, LARGEST_SHARD = 256 << 10, 64 << 20
# Enough shards that several workers share even a small dataset evenly.
SHARDS_WANTED = 16
SURVEY_BLOCK = 256


@dataclass(frozen=True)
class StoreOptions:
    """How a store is written; none of it changes what is read back, but `stored` rounds it."""

    format: Format = "zarr"
    codec: Codec = "none"
    stored: Stored = "float16"


def store_options(format: str, codec: str, stored: str) -> StoreOptions:
    """StoreOptions from text. Raises UserError naming what is known."""
    for option, value, known in (("--format", format, Format), ("--codec", codec, Codec), ("--store", stored, Stored)):
        if value not in get_args(known):
            raise UserError(f"{option} {value} is not known: use {' or '.join(get_args(known))}.")
    return StoreOptions(cast(Format, format), cast(Codec, codec), cast(Stored, stored))


@dataclass(frozen=True)
class ModalityPlan:
    """What will be encoded for one modality, and where it will lie."""

    spec: EncoderSpec
    encoder_fields: Mapping[str, Any]
    identity: Identity
    layout: Layout
    path: Path
    random_weights: bool
    ids: Sequence[str]
    media: Sequence[Media | None]
    digests: Sequence[str]
    problems: dict[int, str]

    @property
    def modality(self) -> str:
        return self.identity.modality

    @property
    def bytes(self) -> int:
        """Bytes of token data, before compression."""
        return self.layout.total * self.layout.dim * self.layout.dtype.itemsize

    def items(self, failures: dict[int, str]) -> Items:
        """One row a sample: where its tokens lie, and ok, failed or missing with the reason."""
        missing = {row: "" for row, source in enumerate(self.media) if source is None}
        return Items.of(self.layout, self.ids, {**self.problems, **failures}, missing, self.digests)


def free_bytes(path: Path) -> int:
    """Bytes free where `path` will lie, whether or not its folders exist yet."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def make_plan(
    collection: Collection, encoder: FrozenEncoder, dataset: Path, options: StoreOptions, threads: int = 8
) -> ModalityPlan:
    """Fix everything about one modality's store before its first shard.

    Reads every source once, files in `threads` threads.
    """
    modality = encoder.spec.modality
    media = collection.media[modality]
    lengths, digests, problems = survey(media, encoder, threads)
    encoder_fields = encoder.identity_fields()
    fields = {**encoder_fields, "samples": ids_digest(collection.ids), "stored_dtype": options.stored}
    identity = Identity(modality, encoder.name, fields)
    total_bytes = int(lengths.sum()) * encoder.dim * np.dtype(options.stored).itemsize
    shard_bytes = min(max(total_bytes // SHARDS_WANTED, SMALLEST_SHARD), LARGEST_SHARD)
    layout = Layout(
        lengths,
        encoder.dim,
        shard_tokens_for(encoder.dim, options.stored, shard_bytes),
        options.format,
        options.codec,
        options.stored,
    )
    return ModalityPlan(
        spec=encoder.spec,
        encoder_fields=encoder_fields,
        identity=identity,
        layout=layout,
        path=dataset / identity.folder,
        random_weights=encoder.random_weights,
        ids=collection.ids,
        media=media,
        digests=digests,
        problems=problems,
    )


def survey(
    media: Sequence[Media | None], encoder: FrozenEncoder, threads: int
) -> tuple[np.ndarray, list[str], dict[int, str]]:
    """Each sample's token count (N,), source digest ("" where there is none), and why a source cannot be used."""
    lengths = np.zeros(len(media), np.int64)
    digests = [""] * len(media)
    problems: dict[int, str] = {}
    blocks = [range(i, min(i + SURVEY_BLOCK, len(media))) for i in range(0, len(media), SURVEY_BLOCK)]

    def look(rows: range) -> list[tuple[int, str, int | DecodeError]]:
        return list(_measured([(row, source) for row in rows if (source := media[row]) is not None], encoder))

    # Threads wait for disks; over media that are in memory already they would only take turns.
    on_disk = any(isinstance(source, FileMedia) for source in media)
    with ThreadPoolExecutor(threads if on_disk else 1) as pool:
        for row, digest, length in chain.from_iterable(pool.map(look, blocks)):
            digests[row] = digest
            if isinstance(length, DecodeError):
                problems[row] = str(length)
            else:
                lengths[row] = length
    return lengths, digests, problems


def _measured(
    sources: Sequence[tuple[int, Media]], encoder: FrozenEncoder
) -> Iterator[tuple[int, str, int | DecodeError]]:
    """Row, digest and token count of each source; where it cannot be read, no digest and the reason."""
    there: list[tuple[int, Media, str]] = []
    for row, source in sources:
        try:
            there.append((row, source, source.digest()))
        except OSError as error:
            yield row, "", readable(error)
    for (row, _, digest), length in zip(there, encoder.measure([source for _, source, _ in there]), strict=True):
        yield row, digest, length
