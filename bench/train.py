"""Training from the cache: waiting for data, epochs against other loaders, against encoders in the loop, start-up.

    .venv/bin/python bench/train.py [--only waiting|epochs|loop|startup] [--samples 4000]

The rows of HF `datasets` and `Trainer` appear where `datasets` and `accelerate` are installed. Ratios are of one run:
the contenders take turns, epoch by epoch, and each row is its median. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import torch
from pgm.cache import DatasetCard, open_dataset, publish, storage_at
from pgm.trainer.batch import Batch, Inputs
from pgm.trainer.methods import Stage
from pgm.trainer.run.machine import Machine
from pgm.trainer.run.model import Model
from pgm.trainer.run.optimiser import build_optimiser
from pgm.trainer.run.request import Request, Resolved, resolve
from pgm.trainer.run.step import Trainer
from pgm.trainer.run.threads import is_narrow
from pgm.trainer.run.training import build_model, feed_of, trainer_of
from random_store import random_store
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CPU = torch.device("cpu")
CORES = torch.get_num_threads()
BATCH = 32
SHAPES = {"text": (16, 768), "vision": (50, 768)}  # tokens and width: a title, and CLIP's patches
Rows = list[tuple[str, float, str]]


def machine() -> str:
    """What the numbers were measured on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    load = f"load {os.getloadavg()[0]:.1f}"
    return (
        f"{model.partition(':')[2].strip()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, torch {torch.__version__}; {load}"
    )


def table(title: str, head: tuple[str, str], rows: Iterable[tuple[str, float, str]]) -> None:
    """Aligned plain text."""
    print(f"\n{title}\n  {'':44} {head[0]:>14}  {head[1]}")
    for name, value, told in rows:
        print(f"  {name:44} {value:14,.3f}  {told}")
    sys.stdout.flush()


def make_dataset(
    root: Path, samples: int, shapes: Mapping[str, tuple[int, int]], ragged: bool = False, task: str = "classification"
) -> None:
    """A dataset of random float16 tokens in dialogues of ten; nine tenths train."""
    generator = np.random.default_rng(0)
    ids = [f"{row:07d}" for row in range(samples)]
    splits = ["train" if row % 10 else ("val" if row % 20 else "test") for row in range(samples)]
    labels = generator.integers(0, 10, samples).astype(np.int32)
    columns = {"id": ids, "split": splits, "label": labels, "group": [f"{row // 10:06d}" for row in range(samples)]}
    if task == "sentiment":
        columns["label"] = labels / 2 - 2.25
    classes = () if task == "sentiment" else tuple("0123456789")
    dataset, stores = storage_at(root / "bench"), {}
    for modality, (tokens, dim) in shapes.items():
        lengths = generator.integers(1, tokens + 1, samples) if ragged else np.full(samples, tokens)
        folder, version = random_store(dataset, modality, ids, lengths, dim)
        stores[folder] = version
    publish(dataset, DatasetCard("bench", task, classes, ("accuracy",)), pa.table(columns), stores)


def resolved_for(root: Path, method: str, **settings: Any) -> Resolved:
    return resolve(Request(root, root / "runs", method=method, settings={"batch": BATCH, **settings}))


def trainer_for(resolved: Resolved, kind: str) -> tuple[Trainer, Stage, torch.optim.Optimizer]:
    """The trainer's own loop on one feed, the stage on the task, and its optimiser; it writes nothing."""
    model = build_model(resolved)
    # As the trainer chooses them; everybody's model here is the same, and so are its threads.
    torch.set_num_threads(1 if is_narrow(model) else CORES)
    trainer = trainer_of(resolved, model, feed_of(resolved, "train", kind), Machine(CPU, "fp32"))
    return trainer, trainer.stages[-1], build_optimiser(model, trainer.stages[-1], resolved.protocol, CPU)


def epoch_of(resolved: Resolved, kind: str) -> Callable[[], float]:
    """One epoch of the trainer's loop on each call; returns the share of it spent waiting for data."""
    trainer, stage, optimiser = trainer_for(resolved, kind)

    def epoch() -> float:
        _, clock = trainer.epoch(stage, 0, optimiser)
        return clock.waited / clock.training

    return epoch


def waiting(samples: int, repeat: int) -> None:
    """The share of training time spent waiting for data."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), samples, SHAPES, ragged=True)
        for preset, method in (("small", "concat"), ("small", "pgm")):
            resolved = resolve(Request(Path(folder), Path(folder), method=method, preset=preset))
            for kind in ("resident", "mapped"):
                epoch = epoch_of(resolved, kind)
                shares = [epoch() for _ in range(repeat + 1)][1:]
                rows.append((f"{method}, {preset} preset, {kind}", 100 * statistics.median(shares), "% of the time"))
    table(f"Waiting for data: {samples:,} samples of up to 16 + 50 tokens of 768, batch {BATCH}", ("waiting", ""), rows)


class Hdf5Rows(Dataset[dict[str, Any]]):
    """What one writes first: a padded HDF5 file, one row a sample, opened in each worker."""

    def __init__(self, path: Path, rows: np.ndarray) -> None:
        self.path, self.rows = path, rows
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        if self.file is None:
            self.file = h5py.File(self.path)
        row = int(self.rows[position])
        found = {name: torch.from_numpy(self.file[name][row]) for name in (*SHAPES, *(f"{m}_mask" for m in SHAPES))}
        return {**found, "label": int(self.file["label"][row])}


def padded_arrays(resolved: Resolved) -> dict[str, np.ndarray]:
    """The training split as padded arrays, masks and labels, for the other loaders."""
    arrays: dict[str, np.ndarray] = {"label": resolved.data.targets}
    for name, store in resolved.data.features.items():
        arrays[name], arrays[f"{name}_mask"] = store.padded(np.arange(len(store)))
    return arrays


class Contender:
    """The same model, optimiser and update, fed by somebody else's loader."""

    def __init__(self, resolved: Resolved, loader: Iterable[Mapping[str, Tensor]]) -> None:
        self.trainer, self.stage, self.optimiser = trainer_for(resolved, "resident")
        self.loader = loader

    def __call__(self) -> float:
        self.trainer.model.train()
        for found in self.loader:
            inputs = Inputs({m: found[m].float() for m in SHAPES}, {m: found[f"{m}_mask"].bool() for m in SHAPES})
            batch = Batch(torch.arange(len(found["label"])), inputs, found["label"].long())
            self.trainer.step(self.stage, batch, self.optimiser)
        return 0.0


def huggingface_loader(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> Any:
    """An Arrow dataset of the same samples."""
    import datasets

    datasets.disable_progress_bars()
    dtype = {m: datasets.Array2D(shape=SHAPES[m], dtype="float16") for m in SHAPES}
    masks = {f"{m}_mask": datasets.Sequence(datasets.Value("bool"), length=SHAPES[m][0]) for m in SHAPES}
    features = datasets.Features({**dtype, **masks, "label": datasets.Value("int64")})

    def samples() -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {name: arrays[name][row] for name in features}

    return datasets.Dataset.from_generator(samples, features=features).with_format("torch")


def trainer_epoch(resolved: Resolved, dataset: Any, folder: Path) -> Callable[[], float]:
    """One epoch by HF Trainer on each call: the same model, batch, optimiser and clip, two loader workers."""
    from transformers import Trainer, TrainingArguments

    class Wrapped(torch.nn.Module):
        def __init__(self, model: Model) -> None:
            super().__init__()
            self.model = model

        def forward(self, labels: Tensor, **columns: Tensor) -> dict[str, Tensor]:
            inputs = Inputs({m: columns[m].float() for m in SHAPES}, {m: columns[f"{m}_mask"].bool() for m in SHAPES})
            output = self.model(inputs)
            return {"loss": torch.nn.functional.cross_entropy(output.logits, labels.long())}

    wrapped = Wrapped(build_model(resolved))
    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=9e-4,
        weight_decay=1e-4, max_grad_norm=1.0, lr_scheduler_type="constant", optim="adamw_torch_fused",
        dataloader_num_workers=2, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        remove_unused_columns=False, use_cpu=True,
    )  # fmt: skip

    def epoch() -> float:
        Trainer(model=wrapped, args=arguments, train_dataset=dataset).train()
        return 0.0

    return epoch


def epochs(samples: int, repeat: int) -> None:
    """Whole training epochs a second at equal model and batch, by loader."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_dataset(folder, samples, SHAPES, ragged=True)
        resolved = resolved_for(folder, "concat")
        arrays, rows = padded_arrays(resolved), resolved.data.splits["train"]
        with h5py.File(folder / "padded.h5", "w") as file:
            for key, values in arrays.items():
                file.create_dataset(key, data=values)
        options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "num_workers": 2}
        contenders: dict[str, Callable[[], float]] = {
            "pgm, resident": epoch_of(resolved, "resident"),
            "pgm, mapped": epoch_of(resolved, "mapped"),
            "DataLoader over HDF5, 2 workers": Contender(
                resolved, DataLoader(Hdf5Rows(folder / "padded.h5", rows), persistent_workers=True, **options)
            ),
        }
        if importlib.util.find_spec("datasets") and importlib.util.find_spec("accelerate"):
            dataset = huggingface_loader(arrays, rows)
            loader = DataLoader(dataset, persistent_workers=True, **options)
            contenders["HF datasets in a DataLoader, 2 workers"] = Contender(resolved, loader)
            contenders["HF Trainer over HF datasets, 2 workers"] = trainer_epoch(resolved, dataset, folder)
        times: dict[str, list[float]] = {key: [] for key in contenders}
        for turn in range(repeat + 1):
            for key, epoch in contenders.items():
                begun = time.perf_counter()
                epoch()
                if turn:  # the first round starts workers and warms the page cache
                    times[key].append(time.perf_counter() - begun)
    base = statistics.median(times["pgm, resident"])
    planned_rows = [
        (k, 1 / statistics.median(v), f"{statistics.median(v) / base:.2f}x our time") for k, v in times.items()
    ]
    count = len(resolved.data.splits["train"])
    table(f"Epochs: concat, small preset, {count:,} samples of up to 16 + 50 tokens of 768, batch {BATCH}",
          ("epochs/s", "time against resident"), planned_rows)  # fmt: skip


def timed(work: Callable[[], Any], repeat: int = 5) -> float:
    """Median seconds, after one call to warm up."""
    work()
    return statistics.median(_once(work) for _ in range(repeat))


def _once(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def head_seconds(method: str, preset: str, shapes: Mapping[str, tuple[int, int]], batch_size: int = 4) -> float:
    """Seconds a sample of a training step on cached tokens of these shapes; a small batch, as a CPU takes a while."""
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), 200, shapes)
        resolved = resolve(Request(Path(folder), Path(folder), method=method, preset=preset))
        trainer, stage, optimiser = trainer_for(resolved, "resident")
        (batch,) = trainer.feed.batches([np.arange(batch_size)])
        trainer.model.train()
        return timed(lambda: trainer.step(stage, batch, optimiser), 2) / batch_size


def real_encoders() -> dict[str, tuple[tuple[int, int], float]]:
    """T5-base, CLIP ViT-B/32 and AST at their real sizes (random weights take as long): shape, seconds a sample."""
    from transformers import ASTConfig, ASTModel, CLIPVisionConfig, CLIPVisionModel, T5Config, T5EncoderModel

    t5 = T5EncoderModel(T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)).eval()
    clip, ast = CLIPVisionModel(CLIPVisionConfig()).eval(), ASTModel(ASTConfig()).eval()
    ids, pixels, sound = torch.randint(0, 32000, (4, 32)), torch.randn(4, 3, 224, 224), torch.randn(1, 1024, 128)
    with torch.inference_mode():
        return {
            "text": ((32, 768), timed(lambda: t5(input_ids=ids), 3) / 4),
            "vision": ((50, 768), timed(lambda: clip(pixel_values=pixels), 3) / 4),
            "audio": ((1214, 768), timed(lambda: ast(sound), 1)),
        }


def loop() -> None:
    """From the cache against encoders in the loop: an epoch's time with and without encoding every sample anew."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        code = "import sys; from pgm.cli import main; sys.argv[0] = 'pgm'; main()"
        command = [sys.executable, "-c", code, "extract", "digits", "--executor", "serial", "--features", str(root)]
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        encoding = time.perf_counter() - begun
        samples = len(open_dataset(root, "digits").samples)
        for method in ("concat", "pgm"):
            resolved = resolve(Request(root, root / "runs", method=method))
            cached = timed(epoch_of(resolved, "resident"), 3) / len(resolved.data.splits["train"])
            ratio = (cached + encoding / samples) / cached
            rows.append(
                (f"digits, tiny encoders, {method} small", ratio, f"{1 / cached:,.0f} samples/s from the cache")
            )
    table("From the cache against encoders in the loop (frozen, CPU), measured", ("times faster", ""), rows)
    real_loop()


def real_loop() -> None:
    """The same at the paper's sizes, computed from the measured time of each encoder and of a training step."""
    rows: Rows = []
    encoders = real_encoders()
    for names in (("text", "vision"), ("text", "vision", "audio")):
        shapes = {n: (min(encoders[n][0][0], 50), 768) for n in names}  # AST's 1,214 tokens pooled to 50
        per_sample = head_seconds("pgm", "paper", shapes)
        encoding = sum(encoders[n][1] for n in names)
        told = f"{1 / per_sample:,.1f} samples/s from the cache, {1 / encoding:,.1f} encoded"
        rows.append((f"{' + '.join(names)}, pgm paper", (per_sample + encoding) / per_sample, told))
    table("The same with T5-base, ViT-B/32 and AST, computed", ("times faster", ""), rows)


STARTUP = """
import sys, time
from pathlib import Path
from pgm.trainer.run.events import BatchFinished, RunStarted
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out

def stop(event):
    if isinstance(event, BatchFinished):
        print(time.time())
        sys.stdout.flush()
        import os
        os._exit(0)

carry_out(resolve(Request(Path(sys.argv[1]), Path(sys.argv[1]) / "runs", method=sys.argv[2])), Execution(listener=stop))
"""


def startup(repeat: int) -> None:
    """Seconds from starting the process to the end of the first step, on a finished cache of 100,000 samples."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), 100_000, {"text": (8, 768), "vision": (4, 768)})
        for method in ("concat", "pgm"):
            times = []
            for _ in range(repeat):
                begun = time.time()
                command = [sys.executable, "-c", STARTUP, folder, method]
                found = subprocess.run(command, check=True, capture_output=True, text=True)
                times.append(float(found.stdout) - begun)
            rows.append((f"{method}, small preset", statistics.median(times), "s"))
    table("Start-up to the first step: 100,000 samples of 8 + 4 tokens of 768 (1.8 GB)", ("seconds", ""), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("waiting", "epochs", "loop", "startup"))
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    print(machine())
    tables = {
        "waiting": lambda: waiting(arguments.samples, arguments.repeat),
        "epochs": lambda: epochs(arguments.samples, arguments.repeat),
        "loop": loop,
        "startup": lambda: startup(3),
    }
    for name, show in tables.items():
        if arguments.only in (None, name):
            show()


if __name__ == "__main__":
    main()
