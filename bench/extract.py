"""Extraction: what the pipeline costs over a bare loop, and what a second worker brings. `make bench-extract`.

    python bench/extract.py                       the two ratios, on the embedded digits
        [--rows text,audio] [--encoders tiny]     some of them
    python bench/extract.py --simulate-device     how busy a device of a stated rate is kept, and which stage limits
    python bench/extract.py --memory              a worker's memory on 12-megapixel JPEGs, 8 decoders, batch 128
    python bench/extract.py --jpegs 90686         generated JPEGs with titles through two workers [--against CHECKOUT]
    python bench/extract.py --texts 1000000       one-token items: the client's memory, and what a rerun takes

The bare loop decodes, preprocesses and encodes the batches extraction makes with the same encoder on one thread; it
stores nothing. Encoders: the tiny preset, and the same families with width 256 and 6 layers (random weights), where the
encoder is most of the work, as it is with any published checkpoint. On a machine that does other things too, seconds of
the processor say more than those of the clock: both are given.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from extract_device import memory, simulated
from extract_runs import items, texts
from pgm.pipeline import Collection, EncoderSpec, ExtractOptions, extract, load_dataset
from pgm.pipeline.datasets.table import Columns, load_table
from pgm.pipeline.encoders import FrozenEncoder, build_encoder
from pgm.pipeline.encoders.tiny import tiny_audio, tiny_text
from pgm.pipeline.engine.batches import Waiting, filled
from pgm.pipeline.engine.decoding import decode_part
from pgm.pipeline.engine.events import Event, SegmentWritten
from pgm.pipeline.media import FileMedia, Media
from threadpoolctl import threadpool_limits
from transformers import ASTConfig, ASTModel, CLIPImageProcessorPil, T5Config, T5EncoderModel, ViTConfig, ViTModel

MODALITIES, ENCODERS = ("text", "audio", "vision"), ("tiny", "256x6")
REPEATS = 3
# Where the 1,797 digits take under a second.
COPIES = {("text", "tiny"): 40, ("text", "256x6"): 8, ("vision", "tiny"): 8}
Seconds = tuple[float, float]  # of the clock, of the processor


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


def repeated(collection: Collection, copies: int, folder: Path) -> Collection:
    """The same files several times under names of their own: enough work that starting up does not decide."""
    rows = np.tile(np.arange(len(collection)), copies)
    samples = collection.samples.take(pa.array(rows))
    ids = pa.array([f"{number:06d}" for number in range(len(rows))])
    samples = samples.set_column(samples.schema.get_field_index("id"), "id", ids)
    media: dict[str, list[Media | None]] = {}
    for modality, sources in collection.media.items():
        media[modality] = []
        (folder / modality).mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(rows.tolist()):
            # A link to the file: a source with one name would be encoded once.
            link = folder / modality / f"{number:06d}"
            if not link.exists():
                os.link(str(sources[row]), link)
            media[modality].append(FileMedia(str(link)))
    return replace(collection, samples=samples, media=media)


def batched(media: list[Media], encoder: FrozenEncoder) -> list[tuple[list[Media], int]]:
    """The sources of each batch extraction would make, and how many items copies fill it up to."""
    waiting = Waiting(encoder)
    batches = [*waiting.add(decode_part(encoder, media).of(None, media, 0)), *waiting.of(None)]
    return [([item.source for item in batch], len(filled(batch, encoder))) for batch in batches]


def bare_loop(collection: Collection, spec: EncoderSpec, scratch: Path) -> Seconds:
    """Decode, processor and encoder over the batches extraction would make."""
    encoder = build_encoder(spec)
    batches = batched([source for source in collection.media[spec.modality] if source], encoder)
    torch.set_num_threads(1)
    began = time.perf_counter(), time.process_time()
    encoder = build_encoder(spec)
    for sources, size in batches:
        decoded = encoder.prepare([encoder.decode(source) for source in sources])
        encoder.encode(encoder.collate((decoded * size)[:size]))
    return time.perf_counter() - began[0], time.process_time() - began[1]


def serial(collection: Collection, spec: EncoderSpec, scratch: Path) -> Seconds:
    """The whole of extraction in one process: planning, digests, encoding, writing, checksums."""
    features = scratch / "serial"
    shutil.rmtree(features, ignore_errors=True)
    began = time.perf_counter(), time.process_time()
    extract(collection, features, ExtractOptions(executor="serial", encoders={spec.modality: spec}))
    return time.perf_counter() - began[0], time.process_time() - began[1]


def with_workers(collection: Collection, spec: EncoderSpec, scratch: Path, workers: int) -> float:
    """Seconds a sample once running: starting processes and each worker's first segments are not counted."""
    features = scratch / f"workers{workers}"
    shutil.rmtree(features, ignore_errors=True)
    moments: list[tuple[float, int]] = []

    def listen(event: Event) -> None:
        if isinstance(event, SegmentWritten):
            moments.append((time.perf_counter(), event.samples))

    extract(collection, features, ExtractOptions(workers=workers, encoders={spec.modality: spec}), listen)
    first = 2 * workers
    return (moments[-1][0] - moments[first - 1][0]) / sum(samples for _, samples in moments[first:])


def bare_gain(collection: Collection, spec: EncoderSpec, scratch: Path) -> float:
    """What a second process brings the bare loop: what two workers can gain here at most."""
    seconds = {}
    for count in (1, 2):
        with get_context("spawn").Pool(count, one_blas_thread) as pool:
            # Two at a time, and each alone long enough that both are at work.
            runs = pool.starmap(bare_loop, [(collection, spec, scratch)] * count, chunksize=1)
        seconds[count] = max(clock for clock, _ in runs)
    return 2 * seconds[1] / seconds[2]


def bare_halves(collection: Collection, scratch: Path) -> float:
    """Seconds of two bare loops side by side, each over all modalities of half of the samples; without their start."""
    halves = np.array_split(np.arange(len(collection)), 2)
    specs = [EncoderSpec(modality, "tiny") for modality in collection.media]
    calls = [(collection.take(rows).only([spec.modality]), spec, scratch) for rows in halves for spec in specs]
    with get_context("spawn").Pool(2, one_blas_thread) as pool:
        clocks = [clock for clock, _ in pool.starmap(bare_loop, calls, chunksize=len(specs))]
    return max(sum(clocks[: len(specs)]), sum(clocks[len(specs) :]))


def one_blas_thread() -> None:
    """As Dask starts its workers."""
    threadpool_limits(1)


def alternately(*measures: Callable[[], Seconds]) -> list[Seconds]:
    """The best of each, run in turns so that a slow spell of the machine falls on all."""
    rounds = [[measure() for measure in measures] for _ in range(REPEATS)]
    return [(min(s[0] for s in seconds), min(s[1] for s in seconds)) for seconds in zip(*rounds, strict=True)]


def ratios(scratch: Path, rows: Sequence[str], encoders: Sequence[str], workers: bool) -> None:
    digits = load_dataset("digits", scratch / "digits")
    print("                            ----- bare loop, serial: best of 3 -----   -- us a sample once running --")
    print("modality encoder   samples  clock    ratio    processor        ratio   1 worker  2 workers   gain (bare)")
    for modality in rows:
        for encoder in encoders:
            spec = EncoderSpec(modality, "tiny" if encoder == "tiny" else wider(scratch / modality, modality))
            chosen = repeated(digits.only([modality]), COPIES.get((modality, encoder), 1), scratch / "links")
            bare, ours = alternately(
                lambda c=chosen, s=spec: bare_loop(c, s, scratch), lambda c=chosen, s=spec: serial(c, s, scratch)
            )
            line = f"{modality:<8} {encoder:<8} {len(chosen):>8,} "
            line += f"{bare[0]:>5.2f} {ours[0]:>5.2f} {ours[0] / bare[0]:>6.2f} "
            line += f"  {bare[1]:>6.2f} {ours[1]:>6.2f} {ours[1] / bare[1]:>8.2f} "
            if workers:
                one, two = (min(with_workers(chosen, spec, scratch, n) for _ in range(2)) for n in (1, 2))
                line += f"{one * 1e6:>10,.0f} {two * 1e6:>10,.0f} {one / two:>6.2f}"
                line += f"  ({bare_gain(chosen, spec, scratch):.2f})"
            print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(MODALITIES), help="which modalities' ratios: text,audio,vision")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="through which encoders: tiny,256x6")
    parser.add_argument("--simulate-device", action="store_true", help="a device of a stated rate")
    parser.add_argument("--memory", action="store_true", help="12-megapixel JPEGs")
    parser.add_argument("--jpegs", "--items", dest="items", metavar="N", type=int, help="so many JPEGs with titles")
    parser.add_argument("--against", type=Path, help="a checkout of an earlier commit to run --jpegs with, in turns")
    parser.add_argument("--texts", type=int, help="so many texts of one token")
    parser.add_argument("--no-workers", action="store_true", help="leave out the second worker's gain")
    chosen = parser.parse_args()
    print(f"{date.today()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, torch {torch.__version__}, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if chosen.simulate_device:
            simulated(scratch)
        elif chosen.memory:
            memory(scratch)
        elif chosen.items:
            clock = items(scratch, chosen.items, chosen.against)
            table = Columns(text="title", image="path", label="class")
            bare = bare_halves(load_table(scratch / "table.csv", table), scratch)
            print(f"two bare loops side by side, without their start: {bare:.0f} s, {clock / bare:.2f} of it here")
        elif chosen.texts:
            texts(scratch, chosen.texts)
        else:
            ratios(scratch, chosen.rows.split(","), chosen.encoders.split(","), not chosen.no_workers)


if __name__ == "__main__":
    main()
