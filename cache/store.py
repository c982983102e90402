"""Reading a store: one sample as a view, a batch as one packed buffer, at the speed of memory.

Opening reads store.json and the offsets, nothing else; which samples failed is only looked up where some did.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .blocks import parts, pools
from .encoding import Array, read_dtype
from .errors import IdentityMismatch, SampleUnavailable, StoreIncomplete, UserError
from .identity import Identity
from .items import Items, read_status
from .layout import Int64s, Layout
from .reader import TokenReader
from .records import StoreInfo, format_of, layout_of, read_info, read_record

Unavailable = Literal["error", "empty"]
READ_SAMPLES = 256


class Features:
    """One modality's features of N samples. Made by `open_features`; safe to share between threads, and to fork."""

    def __init__(self, info: StoreInfo, layout: Layout) -> None:
        self.info, self.layout = info, layout
        self.dtype = read_dtype(layout.stored)
        self._reader = TokenReader(layout, format_of(info.path, layout.format))

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self.info.path

    @property
    def identity(self) -> Identity:
        """What was computed."""
        return self.info.identity

    @property
    def dim(self) -> int:
        """D, features a token."""
        return self.layout.dim

    @property
    def lengths(self) -> Int64s:
        """(N,) tokens a sample on disk."""
        return self.layout.lengths

    def __len__(self) -> int:
        return self.layout.samples

    @cached_property
    def items(self) -> Items:
        """items.parquet, read on first use."""
        return Items.read(self.path)

    @property
    def ids(self) -> Sequence[str]:
        """(N,) sample ids."""
        return self.items.ids

    @cached_property
    def status(self) -> npt.NDArray[np.str_]:
        """(N,) "ok", "failed" or "missing"."""
        if self.info.complete and self.info.counts.get("ok") == len(self):
            return np.full(len(self), "ok", "<U7")
        return read_status(self.path)

    @cached_property
    def available(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the sample has features."""
        there: npt.NDArray[np.bool_] = self.status == "ok"
        return there

    def __getitem__(self, row: int) -> Array:
        """Sample `row` as (S, D), read-only: a view of the mapped shard, or a copy where it straddles two shards.

        Raises SampleUnavailable (an IndexError) for a row out of range and for a failed or missing sample.
        """
        if not 0 <= row < self.layout.samples:
            raise SampleUnavailable(self._out_of_range(row))
        if not self._whole and not self.available[row]:
            raise SampleUnavailable(self._why(row))
        tokens = self._reader.rows(int(self.layout.offsets[row]), int(self.layout.offsets[row + 1]))
        tokens.setflags(write=False)
        return tokens

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        """(row, tokens (S, D)) of every available sample, in the order of the shards."""
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
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        tokens = np.empty((total, self.dim), self.dtype) if out is None else self._fitting(out, total)
        self._reader.copy(self.layout.offsets[chosen], lengths, ends - lengths, tokens)
        return tokens, lengths

    def padded(self, rows: npt.ArrayLike, unavailable: Unavailable = "error") -> tuple[Array, npt.NDArray[np.bool_]]:
        """The samples `rows` as (B, S_max, D), zeros after each sample's tokens, and their mask (B, S_max)."""
        chosen, lengths = self._chosen(rows, unavailable)
        longest = int(lengths.max(initial=0))
        mask = np.arange(longest) < lengths[:, None]
        new = np.empty if mask.all() else np.zeros
        tokens = new((len(chosen), longest, self.dim), self.dtype)
        positions = np.arange(len(chosen)) * longest
        self._reader.copy(self.layout.offsets[chosen], lengths, positions, tokens.reshape(-1, self.dim))
        return tokens, mask

    def token_rows(self, start: int, stop: int) -> Array:
        """Rows start:stop of the packed (T, D) tokens, whichever samples they belong to."""
        return self._reader.rows(start, stop)

    def batches(
        self, size: int, rows: npt.ArrayLike | None = None, shuffle: int | None = None
    ) -> Iterator[tuple[Int64s, Array, Int64s]]:
        """(rows, tokens (sum S, D), lengths) of `size` samples at a time, reading the disk in its own order.

        rows: which samples, default all available ones.
        shuffle: a seed: blocks in random order, samples shuffled within pools of blocks (see blocks.py). The way to
            shuffle a compressed store, or one larger than memory; others shuffle as fast by `gather`.
        """
        chosen = np.flatnonzero(self.available) if rows is None else self._chosen(rows, "error")[0]
        if shuffle is None:
            for part in parts(np.sort(chosen), size):
                yield part, *self.gather(part)
            return
        rng = np.random.default_rng(shuffle)
        for pool in pools(self.layout, chosen, rng):
            if self.layout.codec == "none":
                for part in parts(rng.permutation(pool), size):
                    yield part, *self.gather(part)
                continue
            tokens, lengths = self.gather(pool)
            starts, order = np.cumsum(lengths) - lengths, rng.permutation(len(pool))
            for start in range(0, len(pool), size):
                part = order[start : start + size]
                pieces = [tokens[starts[j] : starts[j] + lengths[j]] for j in part.tolist()]
                yield pool[part], np.concatenate(pieces), lengths[part]

    def __reduce__(self) -> tuple[Any, ...]:
        return open_features, (self.path, not self.info.complete)

    def __repr__(self) -> str:
        layout = self.layout
        return (
            f"Features({str(self.path)!r}: {len(self):,} samples, {layout.total:,} tokens of {layout.dim} "
            f"{layout.stored}, {layout.format}, codec {layout.codec})"
        )

    @cached_property
    def _whole(self) -> bool:
        return bool(self.available.all())

    def _chosen(self, rows: npt.ArrayLike, unavailable: Unavailable) -> tuple[Int64s, Int64s]:
        """Checked rows and the tokens each will give."""
        chosen = np.asarray(rows)
        if (chosen.dtype.kind not in "iu" and chosen.size) or chosen.ndim != 1:
            raise UserError(f"rows are a one-dimensional list of sample numbers, not {chosen.dtype} of {chosen.shape}")
        chosen = chosen.astype(np.int64, copy=False)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise SampleUnavailable(self._out_of_range(int(chosen[(chosen < 0) | (chosen >= len(self))][0])))
        lengths = self.layout.lengths[chosen]
        if not self._whole:
            there = self.available[chosen]
            if unavailable == "error" and not there.all():
                raise SampleUnavailable(self._why(int(chosen[~there][0])))
            lengths = np.where(there, lengths, 0)
        return chosen, lengths

    def _fitting(self, out: Array, total: int) -> Array:
        if (
            out.ndim != 2
            or out.shape[1] != self.dim
            or out.dtype != self.dtype
            or len(out) < total
            or not out.flags.c_contiguous
        ):
            raise UserError(
                f"out must hold ({total}, {self.dim}) {self.dtype} for these rows, contiguously; "
                f"it is {out.shape} {out.dtype}"
            )
        return out[:total]

    def _out_of_range(self, row: int) -> str:
        return f"row {row} was asked for; {self.path} has {len(self)} samples (rows 0 to {len(self) - 1})"

    def _why(self, row: int) -> str:
        status = self.status[row]
        told = f": {self.items.error[row]}" if self.info.complete and self.items.error[row] else ""
        remedy = {
            "failed": "`pgm extract --retry-failed` tries it again",
            "missing": "the dataset has no such modality for it",
        }.get(status, "its shard is not written yet")
        return (
            f"sample {row} of {self.path} is {status}{told} ({remedy}); "
            "pass unavailable='empty' to gather it as a sample without tokens"
        )


def open_features(path: Path | str, allow_partial: bool = False, identity: Identity | None = None) -> Features:
    """Open one modality's store, whichever format it has.

    allow_partial: read an unfinished store; samples not written yet are unavailable.
    identity: what the store must hold; IdentityMismatch prints every field that differs.
    Raises NotFound, StoreIncomplete, IdentityMismatch or CorruptStore.
    """
    info = read_info(Path(path))
    if identity is not None and info.identity.digest != identity.digest:
        raise IdentityMismatch(
            f"{path} holds something else than was asked for:\n  "
            + info.identity.difference(identity).replace("\n", "\n  ")
        )
    if not info.complete and not allow_partial:
        raise StoreIncomplete(
            f"{path} is not finished; run the same `pgm extract` again to continue it, "
            "or read what is there with allow_partial=True (--allow-partial)"
        )
    features = Features(info, layout_of(info))
    if not info.complete:
        features.__dict__["status"] = _partial_status(features)
    return features


def _partial_status(features: Features) -> npt.NDArray[np.str_]:
    """(N,) "ok" or "failed" by the shard records, "pending" where a shard is not written."""
    layout = features.layout
    status = np.full(layout.samples, "ok", "<U7")
    for shard in range(layout.shards):
        record = read_record(features.path, shard)
        if record is None:
            rows = layout.samples_of(shard)
            status[rows.start : rows.stop] = "pending"
        else:
            failed = list(record.failures)
            status[failed] = np.where(status[failed] == "pending", "pending", "failed")
    status[layout.lengths == 0] = "missing"
    return status
