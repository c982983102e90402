"""Extraction: what the pipeline costs over a bare loop, and what a second worker brings. `make bench-extract`.

    python bench/extract.py                  the two ratios, on the embedded digits
    python bench/extract.py --food101        90,686 generated JPEGs with titles through two workers, memory watched

The bare loop decodes, preprocesses and encodes the same batches with the same encoder on one thread; it stores nothing.
Encoders: the tiny preset, and the same families with width 256 and 6 layers (random weights), where the encoder is most
of the work, as it is with any published checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import torch
from pgm.pipeline import Collection, EncoderSpec, ExtractOptions, StoreOptions, extract, load_dataset
from pgm.pipeline.datasets.table import Columns, load_table
from pgm.pipeline.encoders import build_encoder
from pgm.pipeline.encoders.tiny import tiny_audio, tiny_text
from pgm.pipeline.events import Event, ShardWritten
from pgm.pipeline.job import batches
from pgm.pipeline.plan import make_plan
from PIL import Image
from transformers import ASTConfig, ASTModel, CLIPImageProcessorPil, T5Config, T5EncoderModel, ViTConfig, ViTModel

REPEATS = 3
FOOD101 = 90_686
COPIES = 8
# Under a second for the 1,797 digits.
QUICK = {("text", "tiny"), ("text", "256x6"), ("vision", "tiny")}


def wider(folder: Path, modality: str) -> str:
    """A checkpoint of width 256 with 6 layers, whose forward pass outweighs decoding."""
    size = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
    torch.manual_seed(0)
    if modality == "text":
        tiny_text()[1].save_pretrained(folder)
        T5EncoderModel(
            T5Config(vocab_size=384, d_model=256, d_kv=64, d_ff=1024, num_layers=6, num_heads=4)
        ).save_pretrained(folder)
    elif modality == "audio":
        extractor = tiny_audio()[1]
        extractor.save_pretrained(folder)
        canvas = {"max_length": extractor.max_length, "num_mel_bins": extractor.num_mel_bins}
        ASTModel(ASTConfig(**size, **canvas, patch_size=16, frequency_stride=16, time_stride=16)).save_pretrained(
            folder
        )
    else:
        CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
        ViTModel(ViTConfig(**size, image_size=64, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def repeated(collection: Collection, copies: int) -> Collection:
    """The same media several times under ids of their own: enough work that starting up does not decide."""
    rows = np.tile(np.arange(len(collection)), copies)
    samples = collection.samples.take(pa.array(rows))
    ids = pa.array([f"{number:06d}" for number in range(len(rows))])
    samples = samples.set_column(samples.schema.get_field_index("id"), "id", ids)
    media = {modality: [sources[row] for row in rows] for modality, sources in collection.media.items()}
    return replace(collection, samples=samples, media=media)


def bare_loop(collection: Collection, spec: EncoderSpec, scratch: Path) -> float:
    """Seconds for decode, processor and encoder over the batches extraction would make."""
    encoder = build_encoder(spec)
    plan = make_plan(collection, encoder, scratch / "unused", StoreOptions())
    cut = [
        batch
        for shard in range(plan.layout.shards)
        for batch in batches(ending_in(plan.layout, shard), plan.layout.lengths, encoder)
    ]
    torch.set_num_threads(1)
    began = time.perf_counter()
    encoder = build_encoder(spec)
    for rows in cut:
        encoder.encode(encoder.collate([encoder.decode(source) for row in rows if (source := plan.media[row])]))
    return time.perf_counter() - began


def ending_in(layout: object, shard: int) -> list[int]:
    """The samples that end in a shard: each once, though a straddling one is encoded by two tasks."""
    from pgm.cache import Layout

    assert isinstance(layout, Layout)
    _, stop = layout.bounds(shard)
    return [row for row in layout.samples_of(shard) if layout.lengths[row] and layout.offsets[row + 1] <= stop]


def serial(collection: Collection, spec: EncoderSpec, scratch: Path) -> float:
    """Seconds of the whole of extraction in one process: planning, digests, encoding, writing, checksums."""
    features = scratch / "serial"
    shutil.rmtree(features, ignore_errors=True)
    began = time.perf_counter()
    extract(collection, features, ExtractOptions(executor="serial", encoders={spec.modality: spec}))
    return time.perf_counter() - began


def with_workers(collection: Collection, spec: EncoderSpec, scratch: Path, workers: int) -> float:
    """Seconds a shard once running: starting processes and each worker's first shard are not counted."""
    features = scratch / f"workers{workers}"
    shutil.rmtree(features, ignore_errors=True)
    moments: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, ShardWritten):
            moments.append(time.perf_counter())

    extract(collection, features, ExtractOptions(workers=workers, encoders={spec.modality: spec}), listen)
    return (moments[-1] - moments[workers]) / (len(moments) - 1 - workers)


def alternately(
    scratch: Path,
    collection: Collection,
    spec: EncoderSpec,
    *measures: Callable[[Collection, EncoderSpec, Path], float],
) -> list[float]:
    """The best of each, run in turns so that a slow spell of the machine falls on all."""
    rounds = [[measure(collection, spec, scratch) for measure in measures] for _ in range(REPEATS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def best(measure: Callable[..., float], *arguments: object) -> float:
    return min(measure(*arguments) for _ in range(2))


def ratios(scratch: Path) -> None:
    digits = load_dataset("digits", scratch / "digits")
    print("modality encoder   samples bare loop   serial  ratio     1 worker  2 workers  gain")
    for modality in ("text", "audio", "vision"):
        for encoder in ("tiny", "256x6"):
            spec = EncoderSpec(modality, "tiny" if encoder == "tiny" else wider(scratch / modality, modality))
            collection = repeated(digits.only([modality]), COPIES if (modality, encoder) in QUICK else 1)
            bare, ours = alternately(scratch, collection, spec, bare_loop, serial)
            one, two = (best(with_workers, collection, spec, scratch, workers) for workers in (1, 2))
            print(
                f"{modality:<8} {encoder:<8} {len(collection):>8,} {bare:>8.2f}s {ours:>7.2f}s {ours / bare:>6.2f}   "
                f"{one * 1e3:>7.0f} ms {two * 1e3:>7.0f} ms {one / two:>5.2f}",
                flush=True,
            )
    print(
        f"bare loop, serial: seconds for all samples, best of {REPEATS}; "
        "workers: milliseconds a shard once running, best of 2"
    )


def food101(scratch: Path, count: int) -> None:
    """As many JPEGs and titles as UPMC Food-101 has, through two workers; prints samples/s and memory over time."""
    root = scratch / "food"
    (root / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    print(f"generating {count:,} JPEGs of 256 pixels ...", flush=True)
    with (root / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["title", "path", "class"])
        for number in range(count):
            low = Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
            low.resize((256, 256), Image.Resampling.BICUBIC).save(root / "images" / f"{number}.jpg", quality=85)
            rows.writerow([f"dish {number} of the day", f"images/{number}.jpg", number % 101])
    collection = load_table(root / "table.csv", Columns(text="title", image="path", label="class"))
    watch = MemoryWatch()
    began = time.perf_counter()
    with watch:
        extract(collection, scratch / "features", ExtractOptions(workers=2, preset="tiny"))
    took = time.perf_counter() - began
    print(f"{count:,} samples, 2 modalities, 2 workers: {took:.0f} s, {count / took:,.0f} samples/s")
    watch.report()


class MemoryWatch:
    """Resident memory of this process and its children, sampled every second."""

    def __enter__(self) -> MemoryWatch:
        self.samples: list[tuple[float, float, float]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        began, me = time.perf_counter(), psutil.Process()
        while not self.stop.wait(1.0):
            children = []
            for child in me.children(recursive=True):
                try:
                    children.append(child.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue
            self.samples.append((time.perf_counter() - began, me.memory_info().rss / 1e6, max(children, default=0.0)))

    def report(self) -> None:
        """The largest worker and the main process, minute by minute."""
        print(f"{'minute':>6} {'main':>9} {'largest worker':>15}")
        for minute in range(int(self.samples[-1][0] // 60) + 1):
            of_minute = [s for s in self.samples if s[0] // 60 == minute]
            print(f"{minute:>6} {max(s[1] for s in of_minute):>6.0f} MB {max(s[2] for s in of_minute):>12.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--food101", action="store_true", help="the large run instead of the ratios")
    parser.add_argument("--count", type=int, default=FOOD101, help="samples of the large run")
    chosen = parser.parse_args()
    print(f"{date.today()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        food101(Path(folder), chosen.count) if chosen.food101 else ratios(Path(folder))


if __name__ == "__main__":
    main()
