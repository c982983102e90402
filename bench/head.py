"""Speed, FLOPs and memory of the PgM head: every number docs/paper-to-code.md and the README quote about it.

Run: .venv/bin/python bench/head.py [--device cuda] [--batch 8] [--only oracle]
Decided: ratios come from interleaved repetitions in one process and are medians; rates are set against matrix products
measured in the same run on the step's own shapes. FLOPs are counted by torch.utils.flop_counter. Cost: three to five
minutes on two CPU cores. The cuda mode (bfloat16 autocast, batches 32 and 128) is written but has never been run.
"""

import argparse
import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Tokens = dict[str, Tensor]
DIGITS = {"text": 48, "vision": 64, "audio": 32}
PARTS = ("oracle", "gemm", "padding", "inference", "memory", "compile")
MOSI = {"text": 768, "vision": 768, "audio": 768}


def load_oracle() -> Any:
    path = Path(__file__).resolve().parents[1] / "tests" / "trainer" / "head" / "oracle.py"
    spec = importlib.util.spec_from_file_location("pgm_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def interleaved(device: str, repetitions: int, *runs: Callable[[], object]) -> list[float]:
    """Median seconds of each, taken in turns so that a busy machine slows all of them."""
    for run in runs:
        run()
        run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repetitions):
        for run, record in zip(runs, times, strict=True):
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            record.append(time.perf_counter() - start)
    return [statistics.median(t) for t in times]


def tokens_for(widths: dict[str, int], batch: int, lengths: dict[str, int], device: str) -> Tokens:
    return {m: torch.randn(batch, lengths[m], d, device=device) for m, d in widths.items()}


def ragged(batch: int, length: int, mean: int, device: str) -> Tensor:
    """A mask with lengths spread evenly around `mean`, the longest being `length`."""
    counts = torch.linspace(max(1, 2 * mean - length), min(length, 2 * mean - 1), batch).round().long()
    counts[0] = length
    return (torch.arange(length) < counts[:, None]).to(device)


class Case:
    """A PgM with its fusion head and a batch, ready to step."""

    def __init__(self, preset: str, widths: dict[str, int], tokens: Tokens, masks: Tokens, **switches: Any) -> None:
        torch.manual_seed(0)
        device = next(iter(tokens.values())).device
        paper = preset == "paper"
        self.config = (PgMConfig.paper if paper else PgMConfig.small)(widths, **switches)
        self.pgm = PgM(self.config).to(device)
        fusion = (FusionConfig.paper if paper else FusionConfig.small)(tuple(widths), 3)
        self.fusion = FusionHead(fusion).to(device)
        self.tokens, self.masks, self.device = tokens, masks, device.type

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda")

    def loss(self) -> Tensor:
        with self.autocast():
            out = self.pgm(self.tokens, self.masks)
            logits = self.fusion(out.uni, out.paired, self.masks).logits
        return logits.float().square().mean() + out.pretraining_loss

    def step(self) -> None:
        self.pgm.zero_grad()
        self.fusion.zero_grad()
        self.loss().backward()

    def forward(self) -> None:
        self.pgm.train()
        with self.autocast():
            self.pgm(self.tokens, self.masks)

    def infer(self) -> None:
        self.pgm.eval()
        with torch.no_grad(), self.autocast():
            self.pgm(self.tokens, self.masks)
        self.pgm.train()


def flops(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and attention, backward included when it runs."""

    def forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    def backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(grad, q, k, v))

    # The counter does not know the CPU's fused attention.
    known = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        run()
    return int(counter.get_total_flops())


def products(rows: int, dtype: torch.dtype, device: str) -> list[tuple[int, Callable[[], object]]]:
    """FLOPs and a run of matrix products: the step's own feed-forward shape, and a square one."""
    found: list[tuple[int, Callable[[], object]]] = []
    for m, k, n in ((rows, 768, 3072), (2048, 2048, 2048)):
        a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype)

        def run(a: Tensor = a, b: Tensor = b) -> None:
            for _ in range(10):
                torch.nn.functional.linear(a, b)

        found.append((20 * m * k * n, run))
    return found


def heading(text: str) -> None:
    print(f"\n{text}\n" + "-" * len(text))


def against_oracle() -> None:
    heading("Training step of PgM, small preset, against the loop-by-loop oracle (batch 32, three modalities)")
    oracle = load_oracle()
    print(f"{'tokens':<34}{'oracle ms':>11}{'PgM ms':>9}{'ratio':>8}{'samples/s':>11}   (target 1.5)")
    cases: list[tuple[str, dict[str, int], int | None]] = [
        ("16 + 16 + 16, full", {"text": 16, "vision": 16, "audio": 16}, None),
        ("text up to 16 (mean 8) + 16 + 8", {"text": 16, "vision": 16, "audio": 8}, 8),
        ("8 + 8 + 8, full", {"text": 8, "vision": 8, "audio": 8}, None),
    ]
    for name, lengths, mean in cases:
        masks = {} if mean is None else {"text": ragged(32, lengths["text"], mean, "cpu")}
        case = Case("small", DIGITS, tokens_for(DIGITS, 32, lengths, "cpu"), masks)
        parameters = dict(case.pgm.named_parameters())
        reference = oracle.Oracle(case.config, parameters, training=True)

        def fast(case: Case = case) -> None:
            case.pgm.zero_grad()
            case.pgm(case.tokens, case.masks).pretraining_loss.backward()

        def slow(case: Case = case, reference: Any = reference) -> None:
            case.pgm.zero_grad()
            sum(reference.forward(case.tokens, case.masks).losses.values()).backward()

        a, b = interleaved("cpu", 25, slow, fast)
        print(f"{name:<34}{a * 1e3:>11.1f}{b * 1e3:>9.1f}{a / b:>8.2f}{32 / b:>11.0f}")


def against_gemm(batch: int, device: str) -> None:
    heading(f"Training step at paper width (3 modalities x 50 tokens, batch {batch}, {device})")
    tokens = tokens_for(MOSI, batch, dict.fromkeys(MOSI, 50), device)
    case = Case("paper", MOSI, tokens, {})
    work = flops(case.step)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    other = products(batch * 150, dtype, device)
    seconds, *times = interleaved(device, 5, case.step, *(run for _, run in other))
    rate = max(count / t for (count, _), t in zip(other, times, strict=True))
    print(f"work of a step          {work / 1e12:8.3f} TFLOP")
    print(f"step                    {seconds:8.3f} s   ({batch / seconds:.1f} samples/s)")
    print(f"achieved                {work / seconds / 1e9:8.1f} GFLOP/s")
    print(f"matrix product, {str(dtype)[6:]:<8}{rate / 1e9:8.1f} GFLOP/s")
    target = 0.4 if device == "cuda" else 0.6
    print(f"share of the product    {work / seconds / rate:8.1%}   (target {target:.0%})")


def padding(device: str) -> None:
    heading("Padding: work of a training step a sample (PgM, paper width, batch 16, texts beside 50-token images)")
    print(f"{'texts':<36}{'real tokens':>12}{'GFLOP':>9}{'MFLOP a token':>15}{'of 50 + 50':>12}")
    widths = {"text": 768, "vision": 768}
    rows = [
        ("50 tokens each", 50, torch.full((16,), 50)),
        ("15 tokens each", 15, torch.full((16,), 15)),
        ("15 tokens each, padded to 50", 50, torch.full((16,), 15)),
        ("1 to 29 tokens, padded to 50", 50, torch.linspace(1, 29, 16).round()),
        ("5 tokens each", 5, torch.full((16,), 5)),
    ]
    whole = 0.0
    for name, length, counts in rows:
        tokens = tokens_for(widths, 16, {"text": length, "vision": 50}, device)
        mask = torch.arange(length) < counts[:, None]
        case = Case("paper", widths, tokens, {"text": mask.to(device)})

        def step(case: Case = case) -> None:
            case.pgm.zero_grad()
            case.pgm(case.tokens, case.masks).pretraining_loss.backward()

        work = flops(step) / 16
        whole = whole or work
        real = counts.sum().item() / 16 + 50
        print(f"{name:<36}{real:>12.1f}{work / 1e9:>9.2f}{work / real / 1e6:>15.1f}{work / whole:>12.1%}")


def inference(device: str, batch: int) -> None:
    heading("Forward for inference against a training-mode forward (PgM alone)")
    print(f"{'preset':<28}{'training ms':>12}{'inference ms':>13}{'ratio':>8}   (target 1.3)")
    for preset, widths, n, length in (("small", DIGITS, 32, 16), ("paper", MOSI, batch, 50)):
        case = Case(preset, widths, tokens_for(widths, n, dict.fromkeys(widths, length), device), {})
        a, b = interleaved(device, 25 if preset == "small" else 3, case.forward, case.infer)
        print(f"{f'{preset}, batch {n}':<28}{a * 1e3:>12.1f}{b * 1e3:>13.1f}{a / b:>8.2f}")


def peak_bytes(case: Case) -> int:
    """Most bytes held at once by a forward and backward pass beyond what was there before; gradients are there."""
    if case.device == "cuda":
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        case.loss().backward()
        return int(torch.cuda.max_memory_allocated() - start)
    held, most = 0, 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        case.loss().backward()
    results = profile.profiler
    assert results is not None
    assert results.kineto_results is not None
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: int(e.start_ns())):
        held += int(event.nbytes())
        most = max(most, held)
    return most


def memory(device: str, batch: int) -> None:
    heading(f"Activation memory of a paper-width training step (3 x 50 tokens, batch {batch})")
    print(f"{'checkpointing':<16}{'peak MiB':>10}{'of plain':>10}{'TFLOP':>9}   (target: 60 % or less)")
    tokens = tokens_for(MOSI, batch, dict.fromkeys(MOSI, 50), device)
    plain = 0
    for checkpointing in (False, True):
        case = Case("paper", MOSI, tokens, {}, checkpointing=checkpointing)
        work = flops(case.step)
        peak = peak_bytes(case)
        plain = plain or peak
        print(f"{'on' if checkpointing else 'off':<16}{peak / 2**20:>10.0f}{peak / plain:>10.1%}{work / 1e12:>9.3f}")


def compiled() -> None:
    heading("torch.compile (inductor) of the small preset's training step, batch 32, 3 x 16 tokens")
    case = Case("small", DIGITS, tokens_for(DIGITS, 32, dict.fromkeys(DIGITS, 16), "cpu"), {})
    fast = torch.compile(case.pgm)
    start = time.perf_counter()
    fast(case.tokens).pretraining_loss.backward()
    first = time.perf_counter() - start
    a, b = interleaved(
        "cpu",
        25,
        lambda: case.pgm(case.tokens).pretraining_loss.backward(),
        lambda: fast(case.tokens).pretraining_loss.backward(),
    )
    print(f"eager {a * 1e3:.1f} ms   compiled {b * 1e3:.1f} ms   ratio {a / b:.2f}   first call {first:.0f} s")


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [
        x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=8, help="batch at paper width on a CPU")
    parser.add_argument("--only", choices=PARTS, action="append", help="leave the other parts out; repeat for several")
    given = parser.parse_args()
    print(f"{machine(given.device)}; torch {torch.__version__}; {time.strftime('%Y-%m-%d')}")
    batches = (32, 128) if given.device == "cuda" else (given.batch,)
    parts = given.only or PARTS[: None if given.device == "cpu" else -1]
    if "oracle" in parts and given.device == "cpu":
        against_oracle()
    for batch in batches if "gemm" in parts else ():
        against_gemm(batch, given.device)
    if "padding" in parts:
        padding(given.device)
    if "inference" in parts:
        inference(given.device, batches[0])
    if "memory" in parts:
        memory(given.device, batches[0])
    if "compile" in parts:
        compiled()


if __name__ == "__main__":
    main()
