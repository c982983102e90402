"""How samples reach the model: resident where the split fits in memory, mapped where it does not.

Resident: the split's packed tokens are one tensor a modality on the device; a batch is one index. Mapped: batches are
gathered from the page cache (pinned for a GPU). On a CPU, and for mapped feeds everywhere, a thread prepares the next
batches while the current one is computed; there is no loader process. Both give the same batches, bit for bit, in the
precision they are stored in: the model widens them in its first operation. Which was chosen and why is said.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache import Features
from ..cache.errors import UserError
from .batch import Batch, Inputs
from .order import Rows
from .pooling import pooled, pooled_lengths

KINDS = ("auto", "resident", "mapped")
RESIDENT_SHARE = 0.35  # of the free memory: the rest is the model's, the page cache's and other people's
PREFETCH = 4  # batches


class Feed(ABC):
    """Batches of one split; positions count the split's samples from 0."""

    kind: str
    reason: str

    def __init__(
        self, features: Mapping[str, Features], rows: Rows, targets: NDArray[Any], tokens: int, device: torch.device
    ) -> None:
        self.device = device
        self.features = features
        self.rows = rows
        self.targets = torch.from_numpy(targets)
        self.limit = tokens
        self.stored = {name: present_lengths(store)[rows] for name, store in features.items()}
        self.lengths = {name: pooled_lengths(lengths, tokens) for name, lengths in self.stored.items()}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total_lengths(self) -> Rows:
        """(N,) tokens a sample over all modalities: what batches are grouped by."""
        total: Rows = np.sum(list(self.lengths.values()), axis=0, dtype=np.int64)
        return total

    @abstractmethod
    def fetch(self, positions: Rows) -> Batch:
        """One batch, wherever the feed's data lie."""

    def batches(self, order: Sequence[Rows]) -> Iterator[Batch]:
        """The batches of `order` on the device, `PREFETCH` of them prepared ahead."""
        with ThreadPoolExecutor(1, thread_name_prefix="pgm-feed") as pool:
            waiting: deque[Future[Batch]] = deque()
            coming = iter(order)
            try:
                while True:
                    waiting.extend(pool.submit(self.fetch, rows) for rows in islice(coming, PREFETCH - len(waiting)))
                    if not waiting:
                        return
                    yield waiting.popleft().result().to(self.device)
            finally:
                for future in waiting:
                    future.cancel()


class Resident(Feed):
    """All tokens of the split on the device, in the precision they are stored in."""

    kind = "resident"

    def __init__(
        self, features: Mapping[str, Features], rows: Rows, targets: NDArray[Any], tokens: int, device: torch.device
    ) -> None:
        super().__init__(features, rows, targets, tokens, device)
        self.targets = self.targets.to(device)
        self.tables = {name: self.load(name).to(device) for name in features}
        self.starts = {name: starts_of(lengths) for name, lengths in self.lengths.items()}

    def load(self, name: str) -> torch.Tensor:
        """(T + 1, D): the split's packed tokens and a row of zeros that padding points at."""
        store, lengths = self.features[name], self.stored[name]
        if self.limit and (lengths > self.limit).any():
            packed: NDArray[Any] = pooled_in_blocks(store, self.rows, lengths, self.limit)
            return torch.from_numpy(np.concatenate([packed, np.zeros((1, store.dim), packed.dtype)]))
        table = np.zeros((int(lengths.sum()) + 1, store.dim), store.dtype)
        store.gather(self.rows, out=table[:-1], unavailable="empty")
        return torch.from_numpy(table)

    def batches(self, order: Sequence[Rows]) -> Iterator[Batch]:
        # On a GPU indexing only queues work; a thread would add nothing but its hand-over.
        return super().batches(order) if self.device.type == "cpu" else map(self.fetch, order)

    def fetch(self, positions: Rows) -> Batch:
        tokens, masks = {}, {}
        for name, table in self.tables.items():
            lengths = self.lengths[name][positions]
            index, mask = padded_index(self.starts[name][positions], lengths, len(table) - 1)
            tokens[name] = self.chosen(table, index)
            masks[name] = torch.from_numpy(mask).to(self.device, non_blocking=True)
        where = torch.from_numpy(positions).to(self.device, non_blocking=True)
        targets = self.targets.index_select(0, where)
        return Batch(torch.from_numpy(self.rows[positions]), Inputs(tokens, masks), targets)

    def chosen(self, table: torch.Tensor, index: Rows) -> torch.Tensor:
        """(B, S, D): the table's rows at `index` (B, S)."""
        if self.device.type == "cpu":
            # A batch is small: numpy's copy beats waking torch's threads for it.
            return torch.from_numpy(table.numpy().take(index, axis=0))
        flat = table.index_select(0, torch.from_numpy(index.reshape(-1)).to(self.device, non_blocking=True))
        return flat.view(*index.shape, -1)


class Mapped(Feed):
    """Batches gathered from the stores' mapped files."""

    kind = "mapped"

    def padded(self, name: str, positions: Rows) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(B, S, D) in the stored precision (pooled: float32) and the mask (B, S); S is at least 1."""
        store, rows, stored = self.features[name], self.rows[positions], self.stored[name][positions]
        if not stored.any():
            return np.zeros((len(rows), 1, store.dim), np.float32), np.zeros((len(rows), 1), np.bool_)
        if not self.limit or (self.stored[name] <= self.limit).all():
            return store.padded(rows, unavailable="empty")
        packed, _ = store.gather(rows, unavailable="empty")
        lengths = self.lengths[name][positions]
        _, mask = padded_index(starts_of(lengths), lengths, 0)
        tokens = np.zeros((*mask.shape, store.dim), np.float32)
        tokens[mask] = pooled(packed, stored, self.limit)
        return tokens, mask

    def fetch(self, positions: Rows) -> Batch:
        """One batch in host memory, pinned when a GPU will take it."""
        tokens, masks = {}, {}
        for name in self.features:
            padded, mask = self.padded(name, positions)
            tokens[name], masks[name] = torch.from_numpy(padded), torch.from_numpy(mask)
        batch = Batch(
            torch.from_numpy(self.rows[positions]), Inputs(tokens, masks), self.targets[torch.from_numpy(positions)]
        )
        return pinned(batch) if self.device.type == "cuda" else batch


def pinned(batch: Batch) -> Batch:
    inputs = batch.inputs
    return Batch(
        batch.rows,
        Inputs(
            {n: t.pin_memory() for n, t in inputs.tokens.items()}, {n: t.pin_memory() for n, t in inputs.masks.items()}
        ),
        batch.targets.pin_memory(),
    )


def pooled_in_blocks(store: Features, rows: Rows, lengths: Rows, limit: int, block: int = 2048) -> NDArray[np.float32]:
    """The split's pooled tokens, read 2,048 samples at a time so that the unpooled ones never are in memory."""
    pieces = []
    for start in range(0, len(rows), block):
        packed, _ = store.gather(rows[start : start + block], unavailable="empty")
        pieces.append(pooled(packed, lengths[start : start + block], limit))
    return np.concatenate(pieces)


def present_lengths(store: Features) -> Rows:
    """(N,) tokens a sample has; 0 where its modality failed or is missing."""
    lengths: Rows = np.where(store.available, store.lengths, 0)
    return lengths


def starts_of(lengths: Rows) -> Rows:
    """(N,) where each sample's tokens begin when they are packed."""
    starts: Rows = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    return starts


def padded_index(starts: Rows, lengths: Rows, padding: int) -> tuple[Rows, NDArray[np.bool_]]:
    """(B, S) rows of the packed table with `padding` where a sample has ended, and the mask; S is at least 1."""
    positions = np.arange(max(1, int(lengths.max(initial=0))))
    mask: NDArray[np.bool_] = positions < lengths[:, None]
    return np.where(mask, starts[:, None] + positions, padding), mask


def open_feed(
    kind: str, features: Mapping[str, Features], rows: Rows, targets: NDArray[Any], tokens: int, device: torch.device
) -> Feed:
    """The feed of one split. `auto` is resident where its tokens take at most 35 % of the free memory."""
    needed = resident_bytes(features, rows, tokens)
    free = free_memory(device)
    fits = needed <= RESIDENT_SHARE * free
    if kind not in KINDS:
        raise UserError(f"--feed is auto, resident or mapped, not {kind!r}.")
    if kind == "resident" and needed > free:
        raise UserError(
            f"--feed resident needs {needed / 2**30:.1f} GiB on {device} and {free / 2**30:.1f} GiB are free; "
            "use --feed mapped, or pool with --tokens K."
        )
    chosen = Resident if kind == "resident" or (kind == "auto" and fits) else Mapped
    feed = chosen(features, rows, targets, tokens, device)
    feed.reason = f"{needed / 2**20:,.1f} MiB of tokens, {free / 2**30:.1f} GiB free" if kind == "auto" else "as asked"
    return feed


def resident_bytes(features: Mapping[str, Features], rows: Rows, tokens: int) -> int:
    """What the split takes in memory; pooled tokens are float32."""
    total = 0
    for store in features.values():
        lengths = present_lengths(store)[rows]
        short = pooled_lengths(lengths, tokens)
        itemsize = 4 if (short < lengths).any() else np.dtype(store.dtype).itemsize
        total += int(short.sum()) * store.dim * itemsize
    return total


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken on the device, or in the machine for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
