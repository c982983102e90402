"""Do the gates follow the information? PgM on synthetic tasks of known mix: gates, probes and accuracy.

Run: .venv/bin/python bench/gates_study.py [--seeds 5] [--epochs 20]
Decided: each task's label holds two bits; only their kind changes. Two stages as in the paper (pre-training alone, then
0.5 L^P + L^T, its learning rates times three for so short a training). A logistic probe on pooled uni-modal and
paired-modal features says where a bit can be read, whatever the gates say. Cost: about ten minutes on one core.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pgm.trainer.data.synthetic import SyntheticConfig, SyntheticData, SyntheticTask, bayes_accuracy
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig, gate_report
from sklearn.linear_model import LogisticRegression
from torch import Tensor

MIXES: dict[str, dict[str, Any]] = {
    "unique (1 in a, 1 in b)": {"unique": {"a": 1, "b": 1}},
    "all in a": {"unique": {"a": 2, "b": 0}},
    "redundant": {"unique": {"a": 0, "b": 0}, "redundant": 2},
    "unique a + synergy": {"unique": {"a": 1, "b": 0}, "synergistic": 1},
    "synergistic": {"unique": {"a": 0, "b": 0}, "synergistic": 2},
}
RATES = {"learners": 3e-4, "decoder": 3e-3, "rest": 9e-4}


@dataclass(frozen=True)
class Trained:
    """One run: test accuracy, shares before and after training by modality, probe accuracies by bit and branch."""

    accuracy: float
    before: dict[str, tuple[float, float, float]]
    after: dict[str, tuple[float, float, float]]
    probes: dict[str, tuple[float, float]]


def shares(model: PgM, data: SyntheticData) -> dict[str, tuple[float, float, float]]:
    report = gate_report(model, [(data.tokens, data.masks)])
    return {m: (row.uni, row.paired, row.overlap) for m, row in report.items()}


def probe(features: Tensor, bits: Tensor, half: int) -> float:
    """Accuracy of a logistic probe fitted on the first half of the test set and scored on the second."""
    fitted = LogisticRegression(max_iter=500).fit(features[:half].numpy(), bits[:half].numpy())
    return float(fitted.score(features[half:].numpy(), bits[half:].numpy()))


def probes(model: PgM, data: SyntheticData) -> dict[str, tuple[float, float]]:
    """Each bit carried by modality a, read from its pooled uni-modal and paired-modal features."""
    with torch.no_grad():
        out = model(data.tokens, data.masks)
    half = len(data.labels) // 2
    carried = {"unique": data.bits["unique:a"], "redundant": data.bits["redundant"], "half of XOR": data.halves["a"]}
    u, p = out.uni["a"].mean(1), out.paired["a"].mean(1)
    return {k: (probe(u, b[:, 0], half), probe(p, b[:, 0], half)) for k, b in carried.items() if b.shape[1]}


def run(mix: dict[str, Any], seed: int, epochs: int) -> Trained:
    torch.manual_seed(seed)
    task = SyntheticTask(SyntheticConfig(**mix, tokens=4, dim=32, noise=1.0), seed)
    train, test = task.sample(2000, seed + 1000), task.sample(1000, seed + 2000)
    widths = {"a": 32, "b": 32}
    sizes: dict[str, Any] = {"dim": 32, "heads": 4, "feedforward": 64}
    model = PgM(PgMConfig.small(widths, **sizes))
    fusion = FusionHead(FusionConfig.small(("a", "b"), 4, length=4, **sizes))
    groups = [{"params": p, "lr": RATES[name]} for name, p in model.parameter_groups().items()]
    groups += [{"params": list(fusion.parameters()), "lr": RATES["rest"]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    before = shares(model, test)
    for epoch in range(epochs):
        for rows in torch.randperm(len(train.labels)).split(50):
            tokens = {m: x[rows] for m, x in train.tokens.items()}
            out = model(tokens)
            loss = out.pretraining_loss
            if epoch >= epochs // 4:
                loss = 0.5 * loss + F.cross_entropy(fusion(out.uni, out.paired).logits, train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
            optimizer.step()
    model.eval()
    fusion.eval()
    with torch.no_grad():
        out = model(test.tokens)
        accuracy = (fusion(out.uni, out.paired).logits.argmax(1) == test.labels).double().mean().item()
    return Trained(accuracy, before, shares(model, test), probes(model, test))


def summary(values: list[float], digits: int = 1) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def gate_lines(name: str, mix: dict[str, Any], runs: list[Trained]) -> None:
    best = bayes_accuracy(SyntheticConfig(**mix, tokens=4, dim=32, noise=1.0), ("a", "b"))
    for m in ("a", "b"):
        cells = [summary([getattr(r, when)[m][i] for r in runs]) for i in range(3) for when in ("before", "after")]
        score = f"{summary([100 * r.accuracy for r in runs])} of {100 * best:.1f}" if m == "a" else ""
        print(f"| {name if m == 'a' else ''} | {m} | " + " | ".join(cells) + f" | {score} |")


def contrasts(results: dict[str, list[Trained]], m: str) -> None:
    """Differences to the synergistic task, seed by seed: what a claim about the gates would have to show."""
    for name, runs in results.items():
        if name == "synergistic":
            continue
        for i, share in ((0, "uni"), (1, "paired")):
            gaps = [r.after[m][i] - s.after[m][i] for r, s in zip(runs, results["synergistic"], strict=True)]
            signs = "".join("+" if g > 0 else "-" for g in gaps)
            error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
            print(f"| {name} | {m} | {share} | {statistics.mean(gaps):+.1f} ± {error:.1f} | {signs} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start, results = time.time(), {}
    for name, mix in MIXES.items():
        results[name] = [run(mix, 1111 + seed, given.epochs) for seed in range(given.seeds)]
    print(f"{given.seeds} seeds, {given.epochs} epochs, torch {torch.__version__}, {time.time() - start:.0f} s\n")
    columns = "uni before | uni after | paired before | paired after | overlap before | overlap after"
    print(f"| task | modality | {columns} | test accuracy, best possible |\n|" + "---|" * 9)
    for name, mix in MIXES.items():
        gate_lines(name, mix, results[name])
    print("\n| task | modality | share | difference to synergistic, ± standard error | signs by seed |\n|" + "---|" * 5)
    for m in ("a", "b"):
        contrasts(results, m)
    print("\n| task | bit in a | read from u | read from p |\n|" + "---|" * 4)
    for name, runs in results.items():
        for bit in runs[0].probes:
            cells = [summary([100 * r.probes[bit][i] for r in runs]) for i in range(2)]
            print(f"| {name} | {bit} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
