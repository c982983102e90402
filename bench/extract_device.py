"""Feeding a device: a simulated one of a stated rate, with decoding as it is, and a worker's memory on large pictures.

No GPU is needed: the encoder has a published model's processor and the shape of its output, and its forward pass takes
device time by the stated rate and no processor time. Rates are an H200's, bfloat16, estimated from the models'
arithmetic at about 40 % of 990 TFLOP/s: CLIP ViT-B/32 20,000 pictures/s, AST 1,500 clips of 10 s, T5-base 30,000 texts
of 64 tokens.
"""

from __future__ import annotations

import io
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import soundfile
import torch
from pgm.cache import storage_at
from pgm.cache.store import Store
from pgm.pipeline.encoders import EncoderSpec, FrozenEncoder
from pgm.pipeline.encoders.audio import DistilledSpectrogramEncoder
from pgm.pipeline.encoders.copying import Encoded
from pgm.pipeline.encoders.text import TextEncoder
from pgm.pipeline.encoders.tiny import byte_tokenizer, tiny_audio, tiny_text, tiny_vision
from pgm.pipeline.encoders.vision import VisionEncoder
from pgm.pipeline.engine.decoders import Decoding
from pgm.pipeline.engine.job import Job, Spent, Task, encoder_identity
from pgm.pipeline.engine.memory import worker_memory
from pgm.pipeline.engine.options import StoreOptions
from pgm.pipeline.engine.segments import segment_items
from pgm.pipeline.engine.worker import Pipeline
from pgm.pipeline.media import FileMedia, Media, TextMedia
from PIL import Image
from transformers import ASTFeatureExtractor, CLIPImageProcessorPil

WIDTH = 768
BATCH = 128
# What a device is offered where the stated one is faster than the cores here: it can then be kept busy.
SHARE_OF_FEED = 0.6
BUSY, SECONDS = 0.95, 10
MEMORY_ITEMS = 384


@dataclass
class Arrival:
    """Stands for a CUDA event: the moment at which the device has done a batch."""

    moment: float

    def synchronize(self) -> None:
        time.sleep(max(0.0, self.moment - time.perf_counter()))


class Device:
    """Does `rate` items a second, one batch after another. began: when the first came."""

    def __init__(self, rate: float) -> None:
        self.rate, self.began, self.free, self.busy = rate, 0.0, 0.0, 0.0

    def start(self, items: int) -> Arrival:
        took, now = items / self.rate, time.perf_counter()
        self.began = self.began or now
        self.free = max(self.free, now) + took
        self.busy += took
        return Arrival(self.free)

    @property
    def share(self) -> float:
        """How much of the time from its first batch to the end of its last it was busy."""
        return self.busy / (self.free - self.began)


@dataclass
class Forward:
    """A forward pass on the device: `tokens` zeros of `WIDTH` an item."""

    device: Device
    tokens: int

    def __call__(self, batch: dict[str, torch.Tensor]) -> Encoded:
        count = len(next(iter(batch.values())))
        arrival = self.device.start(count)
        return Encoded(torch.zeros(count * self.tokens, WIDTH), [self.tokens] * count, arrival)  # type: ignore[arg-type]


def on(encoder: FrozenEncoder, device: Device, tokens: int) -> FrozenEncoder:
    """The encoder with its forward pass on the device."""
    vars(encoder).update(start=Forward(device, tokens), device=torch.device("cuda"), batch_size=BATCH)
    # The width follows from a probe of the model elsewhere.
    vars(encoder).update(_grid=(tokens, WIDTH), _canvas=(tokens, WIDTH))
    return encoder


class WideText(TextEncoder):
    """Tokens of T5-base's width."""

    @property
    def dim(self) -> int:
        return WIDTH


def on_disk(path: Path, content: bytes) -> Media:
    """A file: what is in memory would travel to decoders with every request."""
    path.write_bytes(content)
    return FileMedia(str(path))


def models(folder: Path) -> dict[str, tuple[FrozenEncoder, int, float, list[Media]]]:
    """Name -> encoder, tokens an item, stated rate, media."""
    spec = {m: EncoderSpec(m, device="cpu") for m in ("text", "vision", "audio")}
    clip = VisionEncoder(spec["vision"], tiny_vision()[0], "ViT-B/32", None, True, processor=CLIPImageProcessorPil())
    ast = DistilledSpectrogramEncoder(
        spec["audio"], tiny_audio()[0], "AST", None, True, extractor=ASTFeatureExtractor()
    )
    t5 = WideText(spec["text"], tiny_text()[0], "T5-base", None, True, tokenizer=byte_tokenizer(limit=64))
    rng = np.random.default_rng(0)
    pictures = [on_disk(folder / f"{n}.jpg", jpeg(rng, 500, 375)) for n in range(64)]
    sounds = [on_disk(folder / f"{n}.wav", wav(rng)) for n in range(16)]
    lines = [
        TextMedia(f"{n:03d} " + "a frozen encoder reads this text once, and keeps it ".ljust(59)) for n in range(500)
    ]
    return {
        "CLIP ViT-B/32": (clip, 50, 20_000, pictures * 64),
        "AST": (ast, 1214, 1_500, sounds * 16),
        "T5-base, 64 tokens": (t5, 64, 30_000, lines * 40),
    }


def jpeg(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A picture with as much detail as a photograph's file size suggests."""
    buffer = io.BytesIO()
    low = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8))
    low.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def wav(rng: np.random.Generator) -> bytes:
    """Ten seconds of noise at 16 kHz."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * rng.normal(size=160_000), 16_000, format="WAV")
    return buffer.getvalue()


def feed(encoder: FrozenEncoder, media: list[Media], seconds: float = 4.0) -> float:
    """Items a second that the cores decode here when nothing else is asked of them."""
    with Decoding(encoder) as decoding:
        parts = [media[at : at + decoding.together] for at in range(0, len(media), decoding.together)]
        decoding.submit(parts[0]).result()
        began, done, under_way, at = time.perf_counter(), 0, [], 1
        while time.perf_counter() - began < seconds:
            while len(under_way) < decoding.threads + 2:
                under_way.append(decoding.submit(parts[at % len(parts)]))
                at += 1
            done += len(under_way.pop(0).result().digests)
        return done / (time.perf_counter() - began)


def run(encoder: FrozenEncoder, media: list[Media], folder: Path, decoders: int | None = None) -> tuple[float, Spent]:
    """Seconds from the first segment to the last, and where the encoding thread's went."""
    options = StoreOptions()
    identity = encoder_identity(encoder, options)
    store = Store.create(storage_at(folder), identity, WIDTH, options.stored).storage
    items = segment_items(100_000, encoder.pooled_length(encoder.same_length or 64) * WIDTH * 2)
    cut = [media[at : at + items] for at in range(0, len(media), items)]
    tasks = iter([Task(n, [f"{n} {k}" for k in range(len(part))], part) for n, part in enumerate(cut)])
    job = Job(store, identity, encoder.spec, options, decoders)
    began, spent = time.perf_counter(), Spent()
    for made in Pipeline(job, encoder, lambda _: next(tasks, None)).run():
        spent += made.spent
    return time.perf_counter() - began, spent


def simulated(scratch: Path) -> None:
    """How busy the device is from its first batch to its last, at the stated rate and at one that the cores here can
    feed; what it waited for."""
    print("encoder             device items/s   fed items/s   busy   waited for: read  decode  write   starting")
    for name, (encoder, tokens, stated, media) in models(scratch).items():
        able = feed(on(encoder, Device(stated), tokens), media)
        for rate in sorted({stated, min(stated, SHARE_OF_FEED * able)}):
            device = Device(rate)
            count = max(4 * BATCH, min(len(media), int(SECONDS * min(rate, able))))
            began = time.perf_counter()
            took, spent = run(on(encoder, device, tokens), media[:count], scratch / f"{name[:3]}{rate:.0f}")
            shares = [value / took for value in (spent.read, spent.decode, spent.write)]
            limit = "the device" if device.share >= BUSY else ("read", "decode", "write")[int(np.argmax(shares))]
            print(
                f"{name:<19} {rate:>12,.0f} {able:>13,.0f} {device.share:>8.0%}              "
                + "  ".join(f"{share:>6.0%}" for share in shares)
                + f" {device.began - began:>8.1f} s   limited by {limit}",
                flush=True,
            )


def memory(scratch: Path) -> None:
    """The most a worker holds beside its model: 12-megapixel JPEGs, 8 decoders, batches of 128."""
    rng = np.random.default_rng(0)
    encoder, tokens, _, _ = models(scratch)["CLIP ViT-B/32"]
    pictures = [on_disk(scratch / f"{n}.jpg", jpeg(rng, 4000, 3000)) for n in range(8)]
    on(encoder, Device(20_000), tokens)
    before, most, stop = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.wait(0.05):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    segment = segment_items(100_000, tokens * WIDTH * 2) * tokens * WIDTH * 2
    stated = worker_memory(encoder, pictures[:1], segment, 8)
    took, _ = run(encoder, pictures * (MEMORY_ITEMS // len(pictures)), scratch / "memory", decoders=8)
    stop.set()
    watcher.join()
    print(
        f"{MEMORY_ITEMS} JPEGs of 4000x3000 pixels, 8 decoders, batch 128: {took:.0f} s, {most - before:,.0f} MB "
        f"beside the model and its {before:,.0f} MB of libraries (the worker and its decoders, shared pages once); the "
        f"plan states at most {stated / 1e6:,.0f} MB"
    )


def resident() -> float:
    """Megabytes of this process and its children, pages that they share counted once."""
    total = 0.0
    for process in [psutil.Process(os.getpid()), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().pss / 1e6
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
