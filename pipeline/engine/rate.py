"""How fast an encoder is on this machine, in batches and on threads as a worker has: `pgm encoders check`."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..encoders import EncoderSpec, build_encoder
from ..encoders.facts import made_up
from .batches import most_items
from .worker import one_thread

SECONDS_MEASURED = 1.0


@dataclass(frozen=True)
class Rate:
    """How fast an encoder is on this machine: items a second decoded by one thread, and encoded in batches."""

    modality: str
    encoder: str
    device: str
    compute: str
    tokens: int
    width: int
    batch_size: int
    decoded: float
    encoded: float


def rate(spec: EncoderSpec) -> Rate:
    """The encoder's rate here, on threads and in batches as a worker of an extraction has, over at least a second
    after one batch to warm up."""
    encoder = build_encoder(spec)
    with one_thread(encoder):
        item = made_up(encoder)
        batch_size = most_items(encoder.lengths([encoder.decode(item)])[0], encoder)
        began = time.perf_counter()
        items = [encoder.decode(item) for _ in range(batch_size)]
        decoding = time.perf_counter() - began
        batch = encoder.collate(items)
        shape = encoder.encode(batch)[0].shape
        rounds, began = 0, time.perf_counter()
        while rounds == 0 or time.perf_counter() - began < SECONDS_MEASURED:
            encoder.encode(batch)
            rounds += 1
        encoding = (time.perf_counter() - began) / rounds
    kind = torch.cuda.get_device_name() if encoder.device.type == "cuda" else "CPU, one thread"
    return Rate(
        spec.modality,
        encoder.name,
        kind,
        encoder.spec.compute,
        shape[0],
        shape[1],
        batch_size,
        round(batch_size / decoding, 1),
        round(batch_size / encoding, 1),
    )
