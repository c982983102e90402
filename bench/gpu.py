"""What a GPU makes of this project, in one command; with none, the same parts at sizes a CPU can bear, which it says.

    make bench-gpu          or: .venv/bin/python bench/gpu.py [--device cpu] [--only step table ...] [--write]

Parts: the rate of a matrix product, PgM's step at paper width as a share of it, steps a second of the small preset
without and with CUDA graphs, Table 3 at MOSI's size and an epoch at Food-101's (extrapolated from complete epochs, and
said so), waiting for data, memory, and the share of extraction in which the encoder was at work (T5-base, CLIP B/32 and
AST with random weights; on a CPU models of width 256). A part that fails says why and the others run; no part starts
after LIMIT seconds. --write adds the rows, with date and device, to docs/gpu.md.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import torch
from extract import wider
from extract_device import jpeg, on_disk, wav
from extract_device import run as extraction
from measure import Row, machine, seconds_of
from pgm.pipeline import EncoderSpec
from pgm.pipeline.encoders import build_encoder
from pgm.pipeline.encoders.tiny import tiny_text
from pgm.pipeline.media import Media, TextMedia
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig
from pgm.trainer.run.events import EpochFinished
from pgm.trainer.run.request import Request, Resolved, resolve
from pgm.trainer.run.training import Execution, carry_out
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import plan_table
from pgm.trainer.studies.modules import STUDY as MODULES
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from train import make_dataset
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Config,
    T5EncoderModel,
)

LIMIT = 400  # seconds; the longest part takes another hundred
DOCS = Path(__file__).parents[1] / "docs" / "gpu.md"
HERE = "<!-- bench-gpu: newest first -->\n"
WIDTHS = {"text": 768, "vision": 768, "audio": 768}


@dataclass(frozen=True)
class Bench:
    """Where it runs. real: at real sizes, on a GPU."""

    device: torch.device
    scratch: Path
    rate: list[float] = field(default_factory=list)  # of a matrix product, once measured

    @property
    def real(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.real else torch.float32

    def seconds(self, work: Callable[[], object], repeat: int = 9) -> float:
        """Median seconds of a call, the device's work included."""

        def finished() -> None:
            work()
            if self.real:
                torch.cuda.synchronize()

        return seconds_of(finished, repeat)


def product(bench: Bench) -> Iterator[Row]:
    """What a share is a share of."""
    size = 8192 if bench.real else 1024
    a, b = (torch.randn(size, size, device=bench.device, dtype=bench.dtype) for _ in range(2))
    bench.rate.append(2 * size**3 / bench.seconds(lambda: a @ b))
    yield Row(f"matrix product of {size}, {bench.dtype}", bench.rate[0] / 1e12, "TFLOP/s")


class Step:
    """A training step of PgM with its fusion head on one batch, every token real."""

    def __init__(self, bench: Bench, preset: str, batch: int, tokens: int) -> None:
        head, fusion = (
            (PgMConfig.paper, FusionConfig.paper) if preset == "paper" else (PgMConfig.small, FusionConfig.small)
        )
        self.model = nn.ModuleList([PgM(head(WIDTHS)), FusionHead(fusion(tuple(WIDTHS), 10))]).to(bench.device)
        self.forward: Callable[[dict[str, Tensor]], Tensor] = self.loss
        self.tokens = {m: torch.randn(batch, tokens, width, device=bench.device) for m, width in WIDTHS.items()}
        self.optimiser = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.bench = bench

    def loss(self, tokens: dict[str, Tensor]) -> Tensor:
        pgm, fusion = self.model
        out = pgm(tokens, losses=True)
        loss: Tensor = out.pretraining_loss + fusion(out.uni, out.paired).logits.float().square().mean()
        return loss

    def __call__(self) -> None:
        with torch.autocast(self.bench.device.type, torch.bfloat16, enabled=self.bench.real):
            loss = self.forward(self.tokens)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


def step(bench: Bench) -> Iterator[Row]:
    """PgM at paper width and at the small preset."""
    batch = 64 if bench.real else 2
    wide = Step(bench, "paper", batch, 50)
    with FlopCounterMode(display=False) as counter:
        wide()
    took = bench.seconds(wide, 9 if bench.real else 3)
    if not bench.rate:
        list(product(bench))
    share = counter.get_total_flops() / took / bench.rate[0]
    note = f"batch {batch}, 3 x 50 tokens, {1e3 * took:,.0f} ms"
    yield Row("PgM's step at paper width, of the product's rate", share, least=0.5 if bench.real else None, note=note)
    del wide
    small = Step(bench, "small", 32, 16)
    yield Row("small preset, batch 32, 3 x 16 tokens", 1 / bench.seconds(small), "steps/s", note="eager")
    if bench.real:
        small.forward = torch.compile(small.loss, mode="reduce-overhead")
        yield Row("small preset, batch 32, 3 x 16 tokens", 1 / bench.seconds(small), "steps/s", note="CUDA graphs")
    else:
        yield Row("small preset with CUDA graphs", None, note="needs a GPU")


def epochs(
    bench: Bench, name: str, samples: int, tokens: int, preset: str
) -> tuple[Resolved, dict[str, EpochFinished]]:
    """A whole epoch of each of PgM's stages, the second of two, on a made dataset."""
    root, seen = bench.scratch / name, {}
    make_dataset(root, samples, {m: (tokens, width) for m, width in WIDTHS.items()})
    settings = {"pretrain_epochs": 2, "epochs": 2}
    request = Request(root, root / "runs", preset=preset, settings=settings, device=str(bench.device))

    def keep(event: object) -> None:
        if isinstance(event, EpochFinished):
            seen[event.stage] = event

    resolved = resolve(request)
    carry_out(resolved, Execution(listener=keep))
    return resolved, seen


def table(bench: Bench) -> Iterator[Row]:
    """Table 3 with five seeds: its cells times the preset's epochs, at the speed of one run at a time."""
    samples, tokens, preset = (1427, 50, "paper") if bench.real else (142, 8, "small")
    resolved, seen = epochs(bench, "mosi", samples, tokens, preset)
    full = resolve(Request(resolved.request.features, bench.scratch / "none", preset=preset, device=str(bench.device)))
    request = full.request
    cells = len(plan_table(MODULES.spec(request, StudyOptions()), request, 5).cells)
    a_run = full.protocol.pretrain_epochs * seen["pretrain"].seconds + full.protocol.epochs * seen["task"].seconds
    size = "MOSI's size" if bench.real else "a tenth of MOSI's samples, 8 tokens, small preset"
    note = f"extrapolated from an epoch of each stage, {cells} runs one after another, each as long as PgM's; {size}"
    yield Row("Table 3, five seeds", cells * a_run / 60, "min", under=10 if bench.real else None, note=note)
    yield Row("waiting for data, PgM's last epoch", seen["task"].waiting, note=size)


def food(bench: Bench) -> Iterator[Row]:
    """An epoch over 90,000 samples from one over a part of them."""
    samples, tokens, preset = (20_000, 50, "paper") if bench.real else (600, 8, "small")
    _, seen = epochs(bench, "food", samples, tokens, preset)
    note = f"extrapolated from a whole epoch of {0.9 * samples:,.0f}; 3 x {tokens} tokens, {preset}"
    yield Row("an epoch of Food-101's size, task stage", 90_000 / seen["task"].samples_per_second, "s", note=note)
    yield Row("waiting for data in it", seen["task"].waiting)


def memory(bench: Bench) -> Iterator[Row]:
    """The most that anything above has taken."""
    if bench.real:
        yield Row("most of the device's memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
    yield Row("most of the machine's memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GiB")


def real_size(folder: Path, modality: str) -> str:
    """A checkpoint of the paper's encoder with random weights; T5 with a vocabulary of bytes."""
    torch.manual_seed(0)
    if modality == "text":
        tiny_text()[1].save_pretrained(folder)
        sizes = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
        T5EncoderModel(T5Config(vocab_size=384, **sizes)).save_pretrained(folder)
    elif modality == "vision":
        CLIPImageProcessorPil().save_pretrained(folder)
        CLIPVisionModel(CLIPVisionConfig()).save_pretrained(folder)
    else:
        ASTFeatureExtractor().save_pretrained(folder)
        ASTModel(ASTConfig()).save_pretrained(folder)
    return str(folder)


def extract(bench: Bench) -> Iterator[Row]:
    """How much of an extraction the encoder was at work, and items a second."""
    rng, folder = np.random.default_rng(0), bench.scratch
    line = "a frozen encoder reads this text once, and keeps it ".ljust(59)
    counts = (
        {"text": 20_000, "vision": 8_000, "audio": 1_500} if bench.real else {"text": 400, "vision": 200, "audio": 40}
    )
    pictures: list[Media] = [on_disk(folder / f"{n}.jpg", jpeg(rng, 500, 375)) for n in range(64)]
    sounds: list[Media] = [on_disk(folder / f"{n}.wav", wav(rng)) for n in range(16)]
    texts: list[Media] = [TextMedia(f"{n:05d} {line}") for n in range(counts["text"])]
    names = {"text": "T5-base, 64 tokens", "vision": "CLIP ViT-B/32", "audio": "AST"}
    for modality, media in {"text": texts, "vision": pictures, "audio": sounds}.items():
        checkpoint = (real_size if bench.real else wider)(folder / f"encoder-{modality}", modality)
        encoder = build_encoder(EncoderSpec(modality, checkpoint, device=str(bench.device)))
        count = counts[modality]
        took, spent = extraction(encoder, (media * math.ceil(count / len(media)))[:count], folder / f"store-{modality}")
        name = f"extraction, {names[modality] if bench.real else f'{modality} 256x6'}: encoder at work"
        yield Row(name, spent.encode / took, note=f"{count / took:,.0f} items/s")


PARTS = {"product": product, "step": step, "table": table, "food": food, "memory": memory, "extract": extract}


def rows_of(bench: Bench, parts: list[str]) -> Iterator[Row]:
    """Every part's rows; a part that breaks down is a row that says so."""
    began = time.perf_counter()
    for name in parts:
        if time.perf_counter() - began > LIMIT:
            yield Row(name, None, note=f"left out: {LIMIT} s were over")
            continue
        try:
            yield from PARTS[name](bench)
        except Exception as error:
            yield Row(
                name, None, note=f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )


def spelled(row: Row) -> str:
    """One row of the table in docs/gpu.md."""
    value = "" if row.value is None else f"{row.value:,.3g} {row.unit}".strip()
    return f"| {row.name} | {value} | {row.bar} | {row.verdict} | {row.note} |"


def written(title: str, lines: list[str]) -> None:
    """Add the rows to docs/gpu.md, above those of earlier runs."""
    text = DOCS.read_text()
    DOCS.write_text(text.replace(HERE, HERE + "\n".join(["", title, "", *lines, ""]), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    device = torch.device(given.device)
    what = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"no GPU, CPU proxy at smaller sizes: {machine()}"
    )
    title = f"{date.today()}, {what}, torch {torch.__version__}:"
    print(title, flush=True)
    lines = ["| what | measured | bar | met | |", "|---|---:|---|---|---|"]
    print(*lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows_of(Bench(device, Path(folder)), given.only):
            lines.append(spelled(row))
            print(lines[-1], flush=True)
    if given.write:
        written(title, lines)


if __name__ == "__main__":
    main()
