"""Reading a version: one sample as a view, a batch as one packed buffer, at the speed of memory.

Opening maps the index and reads nothing else. What is open stays what it is: later versions are other files.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from html import escape
from itertools import pairwise
from os import PathLike
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import IdentityMismatch, NotFound, SampleUnavailable, UserError
from ..segment import STATUSES, Buffers, SegmentReader, read_segment
from ..segment.contents import Int64s
from ..segment.copying import row_numbers, take_rows
from ..segment.encoding import Array, read_dtype
from ..storage import Storage, storage_at
from .identity import Identity
from .index import FAILED, OK, Index
from .store import Store
from .version import Version, version_key

Unavailable = Literal["error", "empty"]
READ_SAMPLES = 256


class Features:
    """One modality's features of N samples, at one version, by `open_features`; share it between threads, fork it."""

    def __init__(self, store: Store, version: Version, index: Index) -> None:
        self.store, self.version, self.index = store, version, index
        self.dtype = read_dtype(store.stored)
        self._reader = SegmentReader(store.storage, version.segments, store.stored, store.dim, version.tokens)
        self._buffers = Buffers(store.dim, self.dtype)
        # `pgm cache gc` leaves versions that somebody reads.
        self._hold = store.storage.hold(version_key(version.number))
        self._last_errors: tuple[int, Sequence[str]] | None = None

    @property
    def url(self) -> str:
        """The store's place: a path, or s3://bucket/prefix."""
        return self.store.storage.url

    @property
    def identity(self) -> Identity:
        """What was computed."""
        return self.store.identity

    @property
    def dim(self) -> int:
        """D, features a token."""
        return self.store.dim

    @property
    def content(self) -> str:
        """32 hex digits of the features of all samples, whichever way they came together."""
        return self.version.content

    @property
    def checksums(self) -> npt.NDArray[np.uint64]:
        """(N,) xxh3_64 of each sample's stored bytes; 0 where it has none."""
        return self.index.checksum

    @cached_property
    def lengths(self) -> Int64s:
        """(N,) tokens a sample; 0 where it has none."""
        return self.index.length.astype(np.int64)

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def status(self) -> npt.NDArray[np.str_]:
        """(N,) "ok", "failed" or "missing"."""
        names: npt.NDArray[np.str_] = np.array(STATUSES)
        return names[self.index.status]

    @cached_property
    def available(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the sample has features."""
        there: npt.NDArray[np.bool_] = self.index.status == OK
        return there

    def error(self, row: int) -> str:
        """Why a sample failed; "" where it did not."""
        if self.index.status[row] != FAILED:
            return ""
        return self._errors(int(self.index.segment[row]))[int(self.index.start[row])]

    def errors(self) -> dict[int, str]:
        """Row -> why it failed, of every failed sample."""
        failed = np.flatnonzero(self.index.status == FAILED)
        return {row: self.error(row) for row in failed.tolist()}

    def __getitem__(self, row: int) -> Array:
        """Sample `row` as (S, D), read-only: a view of the mapped segment.

        Raises SampleUnavailable (an IndexError) for a row out of range and for a failed or missing sample.
        """
        if not 0 <= row < len(self):
            raise SampleUnavailable(self._out_of_range(row))
        if not self._complete and not self.available[row]:
            raise SampleUnavailable(self._why(row))
        start, length = int(self.index.start[row]), int(self.index.length[row])
        tokens = self._reader.rows(int(self.index.segment[row]), start, start + length)
        tokens.setflags(write=False)
        return tokens

    def lies(self, row: int) -> bool:
        """Whether an available sample is read as it lies in its file, without decoding."""
        return self._reader.lies(int(self.index.segment[row]))

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        """(row, tokens (S, D)) of every available sample, in the order of the disk."""
        for rows, tokens, lengths in self.batches(READ_SAMPLES):
            ends = np.cumsum(lengths)
            for row, start, end in zip(rows.tolist(), (ends - lengths).tolist(), ends.tolist(), strict=True):
                yield row, tokens[start:end]

    def gather(
        self, rows: npt.ArrayLike, out: Array | None = None, unavailable: Unavailable = "error"
    ) -> tuple[Array, Int64s]:
        """The samples `rows` (B,), in that order, packed: tokens (sum S, D) and lengths (B,).

        out: a (capacity, D) buffer of the store's dtype with room for sum S rows; the tokens are its first rows.
        unavailable: "error" refuses failed and missing samples; "empty" gives them no tokens.
        """
        chosen, lengths = self._chosen(rows, unavailable)
        ends = lengths.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        tokens = self._buffers.get(total) if out is None else self._fitting(out, total)
        self._copy(chosen, lengths, ends - lengths, tokens)
        return tokens, lengths

    def padded(
        self, rows: npt.ArrayLike, out: Array | None = None, unavailable: Unavailable = "error"
    ) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The samples `rows` as (B, S_max, D), zeros after each sample's tokens, and their mask (B, S_max).

        out: a (capacity, D) buffer of the store's dtype with room for B * S_max rows; the tokens are its first rows.
        """
        chosen, lengths = self._chosen(rows, unavailable)
        longest = int(lengths.max(initial=0))
        mask = np.arange(longest) < lengths[:, None]
        total = len(chosen) * longest
        tokens = self._buffers.get(total) if out is None else self._fitting(out, total)
        self._copy(chosen, lengths, np.arange(len(chosen)) * longest, tokens)
        return tokens.reshape(len(chosen), longest, self.dim), mask

    def batches(
        self, size: int, rows: npt.ArrayLike | None = None, shuffle: int | None = None
    ) -> Iterator[tuple[Int64s, Array, Int64s]]:
        """(rows, tokens (sum S, D), lengths) of `size` samples at a time, reading the disk in its own order.

        rows: which samples, default all available ones. shuffle: a seed: segments in random order, samples shuffled
            within pools of them. The way to shuffle compressed stores, and those larger than memory.
        """
        from .blocks import disk_order, pools

        chosen = np.flatnonzero(self.available) if rows is None else self._chosen(rows, "error")[0]
        if shuffle is None:
            ordered = disk_order(self.index, chosen)
            for start in range(0, len(ordered), size):
                part = ordered[start : start + size]
                self._expect(ordered[start : start + 16 * size])
                yield part, *self.gather(part)
            return
        rng = np.random.default_rng(shuffle)
        for pool, following in pairwise([*pools(self.index, chosen, rng), chosen[:0]]):
            self._expect(following)
            order = rng.permutation(len(pool))
            parts = [order[start : start + size] for start in range(0, len(pool), size)]
            if self._reader.ahead(*(column[pool] for column in (self.index.segment, self.index.start, self.lengths))):
                yield from ((pool[part], *self.gather(pool[part])) for part in parts)
            else:
                yield from self._decoded_once(pool, parts)

    def _decoded_once(self, pool: Int64s, parts: Sequence[Int64s]) -> Iterator[tuple[Int64s, Array, Int64s]]:
        """Batches of a pool, `parts` the places in it, of whose compressed chunks each is decoded once."""
        tokens, lengths = self.gather(pool)
        starts = np.cumsum(lengths) - lengths
        for part in parts:
            ends = lengths[part].cumsum()
            batch = self._buffers.get(int(ends[-1]))
            take_rows(tokens, row_numbers(starts[part], lengths[part], ends - lengths[part], len(batch)), batch)
            yield pool[part], batch, lengths[part]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.store.storage, self.version.number, self.version.index)

    def __repr__(self) -> str:
        return (
            f"Features({self.url!r}, version {self.version.number}: {len(self):,} samples, "
            f"{self.version.tokens:,} tokens of {self.dim} {self.store.stored})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: what was computed, and how much of it there is."""
        said = {
            "samples": f"{len(self):,}",
            **{status: f"{count:,}" for status, count in self.version.counts.items()},
            "tokens": f"{self.version.tokens:,}",
            "width": f"{self.dim}",
            "stored": self.store.stored,
            "encoder": self.identity.encoder,
            "version": f"{self.version.number}",
        }
        names = "".join(f"<th>{escape(name)}</th>" for name in said)
        cells = "".join(f"<td>{escape(value)}</td>" for value in said.values())
        caption = f"<caption>{escape(self.identity.modality)}: <code>{escape(self.url)}</code></caption>"
        return f"<table>{caption}<thead><tr>{names}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"

    def _expect(self, rows: Int64s) -> None:
        """Rows that will be asked for soon, in this order."""
        segments = self.index.segment[rows]
        self._reader.expect(segments[np.flatnonzero(np.diff(segments, prepend=-1))].tolist())

    def _copy(self, rows: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        index = self.index
        self._reader.copy(index.segment[rows], index.start[rows].astype(np.int64), lengths, positions, out)

    @property
    def _complete(self) -> bool:
        """Whether every sample has features, so that nobody needs to be asked one by one."""
        return self.version.counts.get("ok") == len(self)

    def _chosen(self, rows: npt.ArrayLike, unavailable: Unavailable) -> tuple[Int64s, Int64s]:
        """Checked rows and the tokens each will give."""
        chosen = np.asarray(rows)
        if (chosen.dtype.kind not in "iu" and chosen.size) or chosen.ndim != 1:
            raise UserError(f"rows are a one-dimensional list of sample numbers, not {chosen.dtype} of {chosen.shape}")
        chosen = chosen.astype(np.int64, copy=False)
        # As unsigned numbers the negative ones are the largest.
        if chosen.size and chosen.view(np.uint64).max() >= len(self):
            raise SampleUnavailable(self._out_of_range(int(chosen[(chosen < 0) | (chosen >= len(self))][0])))
        lengths = self.index.length[chosen].astype(np.int64)
        if not self._complete:
            there = self.available[chosen]
            if unavailable == "error" and not there.all():
                raise SampleUnavailable(self._why(int(chosen[~there][0])))
            lengths = np.where(there, lengths, 0)
        return chosen, lengths

    def _fitting(self, out: Array, total: int) -> Array:
        fits = out.ndim == 2 and out.shape[1] == self.dim and out.dtype == self.dtype and len(out) >= total
        if not fits or not out.flags.c_contiguous:
            raise UserError(
                f"out must hold ({total}, {self.dim}) {self.dtype} for these rows, contiguously; "
                f"it is {out.shape} {out.dtype}"
            )
        return out[:total]

    def _errors(self, segment: int) -> Sequence[str]:
        """(n,) the reasons of a segment's items; the last one read is kept."""
        if self._last_errors is None or self._last_errors[0] != segment:
            there = read_segment(self.store.storage, self.version.segments[segment])
            self._last_errors = segment, there.items.errors
        return self._last_errors[1]

    def _out_of_range(self, row: int) -> str:
        return f"row {row} was asked for; {self.url} has {len(self)} samples (rows 0 to {len(self) - 1})"

    def _why(self, row: int) -> str:
        status, why = self.status[row], self.error(row)
        remedy = {
            "failed": "`pgm extract --retry-failed` tries it again",
            "missing": "the dataset has no such modality for it",
        }[str(status)]
        return (
            f"sample {row} of {self.url} is {status}{f': {why}' if why else ''} ({remedy}); "
            "pass unavailable='empty' to gather it as a sample without tokens"
        )


def open_features(
    place: Storage | PathLike[str] | str, version: int | str | None = None, identity: Identity | None = None
) -> Features:
    """Open one modality's store at one of its versions.

    place: the store's folder or URL. version: a number or a name; by default the latest unnamed one, which a reader
    then sees for as long as it lives. identity: what the store must hold; IdentityMismatch prints every field that
    differs. Raises NotFound, IdentityMismatch or CorruptStore.
    """
    store = Store.open(storage_at(place))
    if identity is not None and store.identity.whole_digest != identity.whole_digest:
        raise IdentityMismatch(
            f"{store.storage.url} holds something else than was asked for:\n  "
            + store.identity.difference(identity).replace("\n", "\n  ")
        )
    found = store.version(version)
    return Features(store, found, store.index(found))


def _reopened(store: Storage, number: int, index: str) -> Features:
    """Features as they were pickled. Raises NotFound where another version has their number."""
    features = open_features(store, number)
    if features.version.index != index:
        raise NotFound(
            f"{store.url} has another version {number} by now than the one that was opened: that was removed, and its "
            "number given again. Open the features anew."
        )
    return features
