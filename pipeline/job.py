"""One task: fill one whole shard.

A shard's bytes depend on the plan alone: its samples are sorted by length (padding is cheapest so) and cut into batches
in that order, and on a CPU the encoder runs on one thread, whatever the executor or the number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cache import Layout, write_shard
from .encode import Failure, encode_items
from .encoders import EncoderSpec, FrozenEncoder, build_encoder, check_same_identity
from .media import Media
from .plan import ModalityPlan
from .standing import Reuse


@dataclass(frozen=True)
class ShardResult:
    """What a finished task reports: small, as it travels through the scheduler."""

    shard: int
    samples: int
    failures: int
    seconds: float


@dataclass(frozen=True)
class EncodeJob:
    """Everything a worker needs for one modality, sent to it once; tasks then carry only shard numbers."""

    modality: str
    store: str
    spec: EncoderSpec
    identity: Mapping[str, Any]
    layout: Layout
    media: Sequence[Media | None]
    reuse: Reuse | None = None

    @staticmethod
    def of(plan: ModalityPlan, reuse: Reuse | None = None) -> EncodeJob:
        """The job of a plan, with what its encoder must be on every worker."""
        return EncodeJob(plan.modality, str(plan.path), plan.spec, plan.encoder_fields, plan.layout, plan.media, reuse)

    def build(self) -> FrozenEncoder:
        """This process's encoder. Raises RunFailed where it is not the one the plan was made with."""
        encoder = build_encoder(self.spec)
        check_same_identity(encoder, self.identity)
        return encoder


def encode_shard(job: EncodeJob, encoder: FrozenEncoder, shard: int) -> ShardResult:
    """Encode the samples of one shard and write it. Runs in a worker, or in the main process."""
    began = time.perf_counter()
    start, stop = job.layout.bounds(shard)
    # float32: the writer checks the range before it rounds.
    tokens = np.zeros((stop - start, job.layout.dim), np.float32)
    rows = [row for row in job.layout.samples_of(shard) if job.layout.lengths[row]]
    failures: dict[int, str] = {}
    reused = dict(job.reuse.held(rows)) if job.reuse else {}
    fresh = _encoded(job, encoder, [row for row in rows if row not in reused], failures)
    for row, values in chain(reused.items(), fresh):
        _place(values, tokens, int(job.layout.offsets[row]) - start)
    write_shard(Path(job.store), shard, tokens, failures)
    # A sample that straddles shards counts in the one where it ends.
    ending = {row for row in rows if job.layout.offsets[row + 1] <= stop}
    return ShardResult(shard, len(ending), len(ending & failures.keys()), time.perf_counter() - began)


def _encoded(
    job: EncodeJob, encoder: FrozenEncoder, rows: Sequence[int], failures: dict[int, str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Row and (S, D) features of each sample that can be encoded; `failures` takes the reasons of the others."""
    sources = [[(row, _source(job, row)) for row in batch] for batch in batches(rows, job.layout.lengths, encoder)]
    with one_thread(encoder):
        for row, tokens in encode_items(encoder, sources, job.layout.stored):
            planned = job.layout.lengths[row]
            if isinstance(tokens, Failure):
                failures[row] = tokens.reason
            elif len(tokens) == planned:
                yield row, tokens
            else:
                why = f"{planned} tokens were planned and {len(tokens)} came out"
                failures[row] = f"the source changed during the run, or its header is wrong: {why}"


def _source(job: EncodeJob, row: int) -> Media:
    source = job.media[row]
    assert source is not None, f"row {row} has tokens planned and no source"
    return source


def batches(rows: Sequence[int], lengths: np.ndarray, encoder: FrozenEncoder) -> list[list[int]]:
    """Rows sorted by length and cut into batches; only equal lengths together where padding would show."""
    ordered = sorted(rows, key=lambda row: (int(lengths[row]), row))
    cut: list[list[int]] = []
    for row in ordered:
        fits = cut and len(cut[-1]) < encoder.batch_size
        if fits and (encoder.mixes_lengths or lengths[cut[-1][0]] == lengths[row]):
            cut[-1].append(row)
        else:
            cut.append([row])
    return cut


def _place(values: np.ndarray, tokens: np.ndarray, at: int) -> None:
    """Copy the part of a sample's (S, D) values that lies in this shard; a sample may straddle its edges."""
    low, high = max(at, 0), min(at + len(values), len(tokens))
    tokens[low:high] = values[low - at : high - at]


@contextmanager
def one_thread(encoder: FrozenEncoder) -> Iterator[None]:
    """Run a CPU encoder on one intra-op thread: its bits then do not depend on how many cores a process has."""
    before = torch.get_num_threads()
    if encoder.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
