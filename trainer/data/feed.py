"""How samples reach the model: resident, copied to the device once, or mapped, read where they lie batch by batch.

Resident: the split's packed tokens are one tensor a modality on the device; a batch is one index, made there from the
epoch's order, which is all that is uploaded. Mapped: batches are gathered from the page cache (pinned for a GPU). On a
CPU, and for mapped feeds everywhere, a thread prepares the next batches while the current one is computed; there is no
loader process. Both give the same batches, bit for bit, in the
precision they are stored in: the model widens them in its first operation. Which was chosen and why is said: resident
where the split fits in memory, but for a CPU that can read plain rows from the page cache. There a copy gains nothing
(0.6 against 0.7 s of processor for the batches of 90,000 samples) and costs seconds before the first step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache import Features
from ...cache.errors import UserError
from ..batch import Batch, Inputs
from .groups import Groups, grouped
from .memory import available_memory
from .order import Rows, evaluation_order, training_order
from .pooling import pooled, pooled_lengths
from .sequence import Neighbours, check_vectors
from .spans import Spans, starts_of

KINDS = ("auto", "resident", "mapped")
RESIDENT_SHARE = 0.35  # of the free memory: the rest is the model's, the page cache's and other people's
PREFETCH = 4  # batches


class Feed(ABC):
    """Batches of one split; positions count the split's samples from 0."""

    kind: str
    reason: str

    def __init__(
        self,
        features: Mapping[str, Features],
        rows: Rows,
        targets: NDArray[Any],
        tokens: int,
        device: torch.device,
        groups: Groups | None = None,
    ) -> None:
        self.device = device
        self.features = features
        self.rows = rows
        self.targets = torch.from_numpy(targets)
        self.limit = tokens
        self.stored = {name: present_lengths(store)[rows] for name, store in features.items()}
        self.lengths = {name: pooled_lengths(lengths, tokens) for name, lengths in self.stored.items()}
        self.groups = groups
        self.neighbours: dict[str, Neighbours] = {}
        if groups is not None and groups.context:
            for name, lengths in self.lengths.items():
                check_vectors(name, lengths)
                self.neighbours[name] = Neighbours(groups, lengths > 0, self.home)
        self.places = None if groups is None else torch.from_numpy(np.stack([groups.codes, groups.turns])).to(self.home)

    @property
    def home(self) -> torch.device:
        """Where batches are put together."""
        return self.device

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total_lengths(self) -> Rows:
        """(N,) tokens a sample over all modalities: what batches are sorted by."""
        shown = [x.lengths for x in self.neighbours.values()] or list(self.lengths.values())
        total: Rows = np.sum(shown, axis=0, dtype=np.int64)
        return total

    def training_order(self, batch: int, seed: int) -> list[Rows]:
        """Positions in shuffled batches of about `batch`."""
        if self.groups is not None and self.groups.whole:
            return grouped(self.groups, batch, seed)
        return training_order(self.total_lengths, batch, seed)

    def evaluation_order(self, batch: int) -> list[Rows]:
        """Every position once, in batches of about `batch`."""
        if self.groups is not None and self.groups.whole:
            return grouped(self.groups, batch, None)
        return evaluation_order(self.total_lengths, batch)

    def fetch(self, positions: Rows, where: torch.Tensor) -> Batch:
        """One batch at `home`; positions (B,) on the host, `where` the same at home."""
        tokens, masks, distances, lengths = {}, {}, {}, {}
        for name in self.features:
            if name in self.neighbours:
                around, masks[name], distances[name] = self.neighbours[name].of(positions, where)
                tokens[name] = self.vectors(name, around, masks[name])
                lengths[name] = self.neighbours[name].lengths[positions]
            else:
                tokens[name], masks[name] = self.padded(name, positions, where)
                lengths[name] = self.lengths[name][positions]
        dialogues, turns = (None, None) if self.places is None else self.places.index_select(1, where).unbind()
        inputs = Inputs(tokens, masks, distances or None, dialogues, turns, lengths)
        return Batch(where, inputs, self.targets.index_select(0, where))

    @abstractmethod
    def padded(self, name: str, positions: Rows, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, S, D) a modality's tokens in the stored precision (pooled: float32) and the mask (B, S); S >= 1."""

    @abstractmethod
    def vectors(self, name: str, around: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, S, D) the one token of each of these samples, zeros where masked."""

    def batches(self, order: Sequence[Rows]) -> Iterator[Batch]:
        """The batches of `order` on the device, `PREFETCH` of them prepared ahead."""
        with ThreadPoolExecutor(1, thread_name_prefix="pgm-feed") as pool:
            waiting: deque[Future[Batch]] = deque()
            coming = iter(order)
            try:
                while True:
                    ahead = islice(coming, PREFETCH - len(waiting))
                    waiting.extend(pool.submit(self.fetch, rows, torch.from_numpy(rows)) for rows in ahead)
                    if not waiting:
                        return
                    yield self.handed_over(waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()

    def handed_over(self, batch: Batch) -> Batch:
        """The batch on the device."""
        return batch


class Resident(Feed):
    """All tokens of the split on the device, in the precision they are stored in."""

    kind = "resident"

    def __init__(
        self,
        features: Mapping[str, Features],
        rows: Rows,
        targets: NDArray[Any],
        tokens: int,
        device: torch.device,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(features, rows, targets, tokens, device, groups)
        self.targets = self.targets.to(device)
        self.tables = {name: self.load(name).to(device) for name in features}
        self.spans = {name: Spans(starts_of(lengths), lengths, device) for name, lengths in self.lengths.items()}

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
        if self.device.type == "cpu" or not len(order):
            return super().batches(order)
        # Here a batch only queues work, and a thread would add nothing but its hand-over. The order goes up once.
        sent = torch.from_numpy(np.concatenate(order)).to(self.device)
        return map(self.fetch, order, torch.split(sent, [len(rows) for rows in order]))

    def padded(self, name: str, positions: Rows, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        table = self.tables[name]
        index, mask = self.spans[name].padded(positions, where, padding=len(table) - 1)
        return self.chosen(table, index), mask

    def vectors(self, name: str, around: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        table = self.tables[name]
        starts = self.spans[name].on_device[0]
        return self.chosen(table, torch.where(mask, starts[around], len(table) - 1))

    def chosen(self, table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(B, S, D): the table's rows at `index` (B, S)."""
        if self.device.type == "cpu":
            # A batch is small: numpy's copy beats waking torch's threads for it.
            return torch.from_numpy(table.numpy().take(index.numpy(), axis=0))
        return table.index_select(0, index.flatten()).view(*index.shape, -1)


class Mapped(Feed):
    """Batches gathered from the stores' mapped files, in host memory; they go to a device from pinned memory."""

    kind = "mapped"

    @property
    def home(self) -> torch.device:
        return torch.device("cpu")

    def fetch(self, positions: Rows, where: torch.Tensor) -> Batch:
        batch = super().fetch(positions, where)
        if self.device.type != "cuda":
            return batch
        # What is pinned already stays as it is.
        samples, targets = batch.samples.pin_memory(), batch.targets.pin_memory()
        return Batch(samples, batch.inputs.mapped(torch.Tensor.pin_memory), targets)

    def handed_over(self, batch: Batch) -> Batch:
        return batch.to(self.device)

    def padded(self, name: str, positions: Rows, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        store, rows, stored = self.features[name], self.rows[positions], self.stored[name][positions]
        if not stored.any():
            return torch.zeros(len(rows), 1, store.dim), torch.zeros(len(rows), 1, dtype=torch.bool)
        if not self.limit or (self.stored[name] <= self.limit).all():
            if self.device.type != "cuda":
                tokens, mask = store.padded(rows, unavailable="empty")
                return torch.from_numpy(tokens), torch.from_numpy(mask)
            shape = len(rows), int(stored.max()), store.dim
            # torch hands pinned memory out again when the copy to the device is done, and not before.
            pinned = torch.empty(shape, dtype=getattr(torch, store.dtype.name), pin_memory=True)
            _, mask = store.padded(rows, out=pinned.flatten(0, 1).numpy(), unavailable="empty")
            return pinned, torch.from_numpy(mask)
        packed, _ = store.gather(rows, unavailable="empty")
        lengths = self.lengths[name][positions]
        mask = np.arange(lengths.max()) < lengths[:, None]
        short = np.zeros((*mask.shape, store.dim), np.float32)
        short[mask] = pooled(packed, stored, self.limit)
        return torch.from_numpy(short), torch.from_numpy(mask)

    def vectors(self, name: str, around: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        wanted, where = torch.unique(around[mask], return_inverse=True)
        if not len(wanted):
            return torch.zeros(*mask.shape, self.features[name].dim)
        single, _ = self.padded(name, wanted.numpy(), wanted)
        tokens = single.new_zeros(*mask.shape, single.shape[2])
        tokens[mask] = single[where, 0]
        return tokens


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


def open_feed(
    kind: str,
    features: Mapping[str, Features],
    rows: Rows,
    targets: NDArray[Any],
    tokens: int,
    device: torch.device,
    groups: Groups | None = None,
    sharing: int = 1,
) -> Feed:
    """The feed of one split.

    `auto` is mapped on a CPU that reads the stores as they lie, else resident where the tokens take at most 35 % of
    the free memory.

    sharing: runs that train at once on this device, of which each has an equal part of what is free.
    """
    needed = resident_bytes(features, rows, tokens)
    free = free_memory(device) // sharing
    fits = needed <= RESIDENT_SHARE * free
    if kind not in KINDS:
        raise UserError(f"--feed is auto, resident or mapped, not {kind!r}.")
    if kind == "resident" and needed > free:
        raise UserError(
            f"--feed resident needs {needed / 2**30:.1f} GiB on {device} and {free / 2**30:.1f} GiB are free; "
            "use --feed mapped, or pool with --tokens K."
        )
    lies = kind == "auto" and device.type == "cpu" and all(lies_as_read(x, rows, tokens) for x in features.values())
    chosen = Resident if kind == "resident" or (kind == "auto" and fits and not lies) else Mapped
    feed = chosen(features, rows, targets, tokens, device, groups)
    among = f" for each of {sharing} runs" if sharing > 1 else ""
    said = f"{needed / 2**20:,.1f} MiB of tokens, {free / 2**30:.1f} GiB free{among}"
    feed.reason = "as asked" if kind != "auto" else "read where they lie" if lies else said
    return feed


def lies_as_read(store: Features, rows: Rows, tokens: int) -> bool:
    """Whether batches are copies of rows as they lie in memory: nothing to decompress, to decode or to pool."""
    lengths = present_lengths(store)[rows]
    if not lengths.any():
        return True
    if tokens and (lengths > tokens).any():
        return False
    # One segment speaks for all: a store is written with one codec.
    return store.lies(int(rows[np.argmax(lengths > 0)]))


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
    """Bytes that can be taken on the device, or by this process for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()[0]
