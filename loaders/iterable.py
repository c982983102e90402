"""A stream of shuffled batches over ranks and loader workers, and a DataLoader of it that resumes in mid-epoch.

An epoch's order is one permutation of the split, by seed and epoch, dealt to the ranks step by step; workers take turns
over their rank's steps, and a DataLoader hands out their batches by turns. So what a rank sees depends neither on the
number of workers nor on where it began, and a state is a count: how many samples of which epoch all ranks have seen.
It can be loaded with other workers, another batch size or another number of ranks; the rest of the epoch is dealt anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..cache.errors import UserError
from .collate import Batch
from .dataset import FeatureDataset, Rows

DECIDING = ("data", "shuffle", "seed")  # what two streams must have in common to have one order


class IterableFeatureDataset(IterableDataset[Batch]):
    """Batches of a FeatureDataset, gathered whole: for `DataLoader(..., batch_size=None)`, or FeatureLoader.

    A batch is what `collate_padded` makes, or `collate_packed` where `packed`. Every sample comes exactly once an
    epoch over all ranks, and all ranks have equally many batches: of batch_size samples each, but for the last, which
    shares what is left evenly (or, where that is fewer samples than ranks, has one more on some). drop_last: only full
    batches. rank, world_size: by default torch.distributed's, or torchrun's environment.

    Iterating goes through the epoch and moves on to the next; left early, it begins again where it began. In worker
    processes a plain DataLoader leaves the epoch to `set_epoch`, as with torch's DistributedSampler.
    Raises UserError for fewer samples than ranks.
    """

    def __init__(
        self,
        dataset: FeatureDataset,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        packed: bool = False,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        here, ranks = this_process()
        self.rank = here if rank is None else rank
        self.world_size = ranks if world_size is None else world_size
        if batch_size < 1 or not 0 <= self.rank < self.world_size:
            raise UserError(
                f"batch_size {batch_size}, rank {self.rank} of {self.world_size}: none such can be dealt to."
            )
        if len(dataset) < self.world_size:
            raise UserError(f"{len(dataset)} samples cannot be dealt to {self.world_size} ranks.")
        self.dataset, self.batch_size = dataset, batch_size
        self.shuffle, self.seed, self.packed, self.drop_last = shuffle, seed, packed, drop_last
        # epoch, samples, whether workers iterate: in memory shared with a loader's workers, which may outlive an epoch.
        self._begin = torch.zeros(3, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._reached = (0, 0)

    @property
    def epoch(self) -> int:
        """The epoch that iterating goes through next."""
        return int(self._begin[0])

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch's, from its beginning."""
        self.begin_at(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """How far iterating in this process has come. Raises UserError where workers do it: see FeatureLoader."""
        if get_worker_info() is not None or self._begin[2]:
            raise UserError(
                "The loader's workers iterate, and only the loader knows how far: use FeatureLoader's state_dict."
            )
        return self.state_at(*self._reached)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from a state. Raises UserError for one of other samples or another order."""
        here = self.state_at(0, 0)
        if wrong := [name for name in DECIDING if state.get(name) != here[name]]:
            told = "; ".join(f"{name} was {state.get(name)!r} and is {here[name]!r}" for name in wrong)
            raise UserError(
                f"This state is of another order of samples ({told}). It was saved on version {state.get('version')} "
                f"of {state.get('dataset')}, and {here['dataset']} is open at version {here['version']}: "
                "open_dataset(..., version=N) opens an earlier one."
            )
        self.begin_at(state["epoch"], state["samples"])

    def state_at(self, epoch: int, samples: int) -> dict[str, Any]:
        """The state in which so many samples of an epoch were seen; at its end that is the next one's beginning."""
        if not len(self.ends(samples)):
            epoch, samples = epoch + 1, 0
        source = self.dataset.dataset
        about = {"dataset": source.name, "version": source.version.number, "data": self.dataset.digest()}
        return {"epoch": epoch, "samples": samples, "shuffle": self.shuffle, "seed": self.seed, **about}

    def begin_at(self, epoch: int, samples: int) -> None:
        """Let the next iteration begin there."""
        self._begin[:] = torch.tensor([epoch, samples, 0])
        self._reached = (epoch, samples)

    def ends(self, samples: int) -> Rows:
        """(steps,) how many samples of the epoch have been seen after each step that follows the first `samples`."""
        sizes = dealt(len(self.dataset) - samples, self.batch_size, self.world_size, self.drop_last)
        ends: Rows = samples + sizes.sum(axis=1).cumsum()
        return ends

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.ends(0))

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, turns = (0, 1) if worker is None else (worker.id, worker.num_workers)
        self._begin[2] = int(worker is not None)
        epoch, samples, _ = self._begin.tolist()
        order = self.order(epoch)
        sizes = dealt(len(order) - samples, self.batch_size, self.world_size, self.drop_last)
        stops = samples + sizes.cumsum().reshape(sizes.shape)
        gather = self.dataset.packed if self.packed else self.dataset.padded
        for step in range(first, len(sizes), turns):
            stop, size = int(stops[step, self.rank]), int(sizes[step, self.rank])
            if worker is None:
                self._reached = (epoch, int(stops[step, -1]))
            if size:
                yield gather(order[stop - size : stop])
        if worker is None:
            self.set_epoch(epoch + 1)

    def order(self, epoch: int) -> Rows:
        """(N,) positions of the dataset's samples in an epoch's order, the same on every rank."""
        count = len(self.dataset)
        return np.random.default_rng((self.seed, epoch)).permutation(count) if self.shuffle else np.arange(count)


class FeatureLoader(DataLoader[Batch]):
    """A DataLoader of an IterableFeatureDataset that knows how many batches it has handed out, with workers too.

    `state_dict()` at any time, also within the loop, and `load_state_dict()` before it: the loop then goes on with the
    batch after the last one handed out, bit for bit as if it had not been left. Epochs follow one another by
    themselves; a loop that is left early begins again where it began.
    """

    dataset: IterableFeatureDataset

    def __init__(self, dataset: IterableFeatureDataset, num_workers: int = 0, **options: Any) -> None:
        """options: DataLoader's pin_memory, prefetch_factor, persistent_workers, multiprocessing_context, timeout."""
        super().__init__(dataset, batch_size=None, num_workers=num_workers, in_order=True, **options)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator, to see what is handed out
        stream = self.dataset
        epoch, samples, _ = stream._begin.tolist()
        for batch, end in zip(super().__iter__(), stream.ends(samples).tolist(), strict=False):
            stream._reached = (epoch, end)
            yield batch
        stream.set_epoch(epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """How far the loop has come: small, of plain numbers and strings, and the same on every rank."""
        return self.dataset.state_at(*self.dataset._reached)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next loop go on from a state. Raises UserError for one of other samples or another order."""
        self.dataset.load_state_dict(state)


def dealt(samples: int, batch: int, ranks: int, drop_last: bool) -> Rows:
    """(steps, ranks) samples in each rank's batch of each step: all of them once, equally many batches a rank."""
    full, left = divmod(samples, batch * ranks)
    sizes = np.full((full, ranks), batch, np.int64)
    if drop_last or not left:
        return sizes
    share = left // ranks + (np.arange(ranks) < left % ranks)
    if left < ranks and full:
        sizes[-1] += share
        return sizes
    return np.concatenate([sizes, share[None]])


def this_process() -> tuple[int, int]:
    """Rank and world size, by torch.distributed or by torchrun's environment; (0, 1) without either."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
