"""Reading a store: one sample as a view, a batch as one packed buffer, at the speed of memory.

Uncompressed shards are mapped, one by one, when first touched; only the page cache holds their bytes. A batch is a loop
of copies out of the maps (0.8 of numpy's fancy indexing in RAM), split over two threads when it is large, because one
thread does not saturate memory (0.9). Compressed shards go through zarr, whole chunks at a time.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .encoding import Array, decode, read_dtype
from .errors import IdentityMismatch, SampleUnavailable, StoreIncomplete, UserError
from .identity import Identity
from .items import Items, read_status
from .layout import Int64s, Layout
from .records import StoreInfo, format_of, layout_of, read_info, read_record

Unavailable = Literal["error", "empty"]
# Below this a second thread costs more than it copies.
THREAD_BYTES = 1 << 20
READ_SAMPLES = 256


class Features:
    """One modality's features of N samples. Made by `open_features`; safe to share between threads, and to fork."""

    def __init__(self, info: StoreInfo, layout: Layout) -> None:
        self.info, self.layout = info, layout
        self.dtype = read_dtype(layout.stored)
        self._format = format_of(info.path, layout.format)
        self._maps: dict[str, list[Array | None]] = {
            "tokens": [None] * layout.shards,
            "scales": [None] * layout.shards,
        }
        self._arrays: dict[str, Any] = {}

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
        start, stop = int(self.layout.offsets[row]), int(self.layout.offsets[row + 1])
        if self.layout.stored == "int8":
            tokens = decode(self._rows("tokens", start, stop), self._rows("scales", start, stop))
        else:
            tokens = self._rows("tokens", start, stop)
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
        self._copy(self.layout.offsets[chosen], lengths, ends - lengths, tokens)
        return tokens, lengths

    def padded(self, rows: npt.ArrayLike, unavailable: Unavailable = "error") -> tuple[Array, npt.NDArray[np.bool_]]:
        """The samples `rows` as (B, S_max, D), zeros after each sample's tokens, and their mask (B, S_max)."""
        chosen, lengths = self._chosen(rows, unavailable)
        longest = int(lengths.max(initial=0))
        mask = np.arange(longest) < lengths[:, None]
        new = np.empty if mask.all() else np.zeros
        tokens = new((len(chosen), longest, self.dim), self.dtype)
        positions = np.arange(len(chosen)) * longest
        self._copy(self.layout.offsets[chosen], lengths, positions, tokens.reshape(-1, self.dim))
        return tokens, mask

    def batches(self, size: int, rows: npt.ArrayLike | None = None) -> Iterator[tuple[Int64s, Array, Int64s]]:
        """(rows, tokens (sum S, D), lengths) of `size` samples at a time, in the order of the shards.

        rows: which samples, default all available ones.
        """
        chosen = np.flatnonzero(self.available) if rows is None else np.sort(np.asarray(rows, np.int64))
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            yield part, *self.gather(part)

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
        if out.ndim != 2 or out.shape[1] != self.dim or out.dtype != self.dtype or len(out) < total:
            raise UserError(
                f"out must hold ({total}, {self.dim}) {self.dtype} for these rows; it is {out.shape} {out.dtype}"
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

    def _copy(self, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy token rows starts[j]:starts[j]+lengths[j] to out[positions[j]:]."""
        if self.layout.stored != "int8":
            self._copy_array("tokens", starts, lengths, positions, out)
            return
        total, packed = int(lengths.sum()), np.cumsum(lengths) - lengths
        tokens, scales = np.empty((total, self.dim), np.int8), np.empty((total, 1), np.float32)
        self._copy_array("tokens", starts, lengths, packed, tokens)
        self._copy_array("scales", starts, lengths, packed, scales)
        for start, size, position in zip(packed.tolist(), lengths.tolist(), positions.tolist(), strict=True):
            decode(tokens[start : start + size], scales[start : start + size], out[position : position + size])

    def _copy_array(self, array: str, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        if len(starts) > 1 and int(lengths.sum()) * out.strides[0] >= THREAD_BYTES:
            half = int(np.searchsorted(np.cumsum(lengths), lengths.sum() // 2)) + 1
            other = _second_thread().submit(
                self._copy_part, array, starts[half:], lengths[half:], positions[half:], out
            )
            self._copy_part(array, starts[:half], lengths[:half], positions[:half], out)
            other.result()
        else:
            self._copy_part(array, starts, lengths, positions, out)

    def _copy_part(self, array: str, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        shards = starts // self.layout.shard_tokens
        firsts = starts - shards * self.layout.shard_tokens
        maps = self._maps[array]
        for shard, first, size, position, start in zip(
            shards.tolist(), firsts.tolist(), lengths.tolist(), positions.tolist(), starts.tolist(), strict=True
        ):
            if not size:
                continue
            piece = maps[shard]
            if piece is not None and first + size <= len(piece):
                out[position : position + size] = piece[first : first + size]
            else:
                out[position : position + size] = self._rows(array, start, start + size)

    def _rows(self, array: str, start: int, stop: int) -> Array:
        """Token rows start:stop, as a view when one mapped shard holds them all."""
        if stop == start:
            width = 1 if array == "scales" else self.dim
            return np.empty((0, width), np.float32 if array == "scales" else self.layout.dtype)
        size = self.layout.shard_tokens
        pieces = []
        for shard in range(start // size, (stop - 1) // size + 1):
            piece = self._map(array, shard)
            if piece is None:
                return self._decoded(array, start, stop)
            pieces.append(piece[max(start - shard * size, 0) : stop - shard * size])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _map(self, array: str, shard: int) -> Array | None:
        piece = self._maps[array][shard]
        if piece is None and (array == "scales" or self.layout.codec == "none"):
            piece = self._maps[array][shard] = self._format.map_shard(self.layout, shard, array)
        return piece

    def _decoded(self, array: str, start: int, stop: int) -> Array:
        if array not in self._arrays:
            self._arrays[array] = self._format.open_array(array)
        return np.asarray(self._arrays[array][start:stop])


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


_thread: dict[int, ThreadPoolExecutor] = {}


def _second_thread() -> ThreadPoolExecutor:
    """One copying thread a process, keyed by pid: threads do not survive a fork."""
    pid = os.getpid()
    if pid not in _thread:
        _thread.clear()
        _thread[pid] = ThreadPoolExecutor(1, thread_name_prefix="pgm-gather")
    return _thread[pid]
