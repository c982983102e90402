"""What there is to gain from fusing a dataset's modalities, by linear models, before anybody claims to gain it.

Logistic regressions on tokens laid end to end (data/flat.py): every modality alone; their late mean; late fusion with
weights tuned on validation; all modalities side by side. Each one's strength (C) is chosen on validation from a range
that grows while its end is the best: the sign of "concatenation minus late mean" turns with C otherwise. Then one
modality is shuffled among the test samples, of the same class or of all classes (arXiv 2509.23499): what the side by
side model loses within a class is what it drew from that sample's modalities belonging together; among all, what it
drew from the modality. No run is needed; what was found is kept under runs/floors/ by the name of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UserError
from ..data.dataset import TrainingData
from ..data.feed import present_lengths
from ..data.flat import Vectors, flat_tokens, flat_vectors
from ..run.files import read_json, write_json
from ..run.floors import TRAIN_LIMIT, Probe, best_probe, evenly
from ..run.home import folder_of
from ..run.request import Request, resolve
from ..run.runs import content_hash
from ..tasks import Recomputed, SampleScores, Task, Views
from .engine.bootstrap import bootstrap, differences, recomputed
from .engine.options import StudyOptions
from .engine.plan import TablePlan
from .engine.render import Record, Sheet, percent
from .engine.results import columns, groups_in
from .engine.runner import Failure
from .engine.study import Study, TableSpec

TITLE = "Interaction: what linear models gain from fusing"
VERSION = 1
STEPS = 1000  # of the solver: with less, a weak regularisation is a strong one
SHUFFLES = 10
LATE, TUNED, CONCAT = "late mean", "late fusion, weights tuned", "concatenation"
SPLITS = ("train", "val", "test")
IN_CLASS = {"among its class": True, "among all": False}


@dataclass(frozen=True)
class Line:
    """One row. strength: C, None where there is none; at_end: it is the last that was to be tried. test: metric ->
    value. against: the row it is compared with; low, high: 95 % over test samples of the difference to it."""

    label: str
    test: Mapping[str, float]
    strength: float | None = None
    at_end: bool = False
    against: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Interaction:
    """The table. tokens: modality -> how many a sample has laid end to end, of how many features each."""

    dataset: str
    primary: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    weights: Mapping[str, float]
    tokens: Mapping[str, Sequence[int]]
    samples: Mapping[str, int]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def difference(self, line: Line) -> float | None:
        """Of the primary metric, to the row it is compared with."""
        other = next((one for one in self.lines if one.label == line.against), None)
        return None if other is None else line.test[self.primary] - other.test[self.primary]


@dataclass(frozen=True)
class InteractionSpec(TableSpec):
    """asked: what decides the numbers; path: where they are kept, there or not."""

    data: TrainingData | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    path: Path = Path()


class InteractionStudy(Study):
    """Rows are linear models; none is trained by gradient steps."""

    name = "interaction"
    has_folds = False
    has_figure = False

    def spec(self, request: Request, options: StudyOptions) -> InteractionSpec:
        """No rows. Raises UserError for a task without classes, and for one modality."""
        resolved = resolve(replace(request, method="concat"))
        data = resolved.data
        if data.task.cross_modal or not data.task.classes or len(data.features) < 2:
            raise UserError(
                f"table interaction compares what classes several modalities tell alone and together; {data.card.name} "
                f"is a {data.card.task} dataset of {', '.join(data.features)}."
            )
        asked = {
            "interaction": VERSION,
            **resolved.data_identity,
            "split": [resolved.protocol.val_fraction, resolved.protocol.split_seed],
            "task": data.task.code,
            "judge": data.task.judge,
            "primary": data.task.primary,
            "balanced": data.task.balanced,
        }
        path = folder_of(resolved.request.runs) / "floors" / f"{content_hash(asked)}.json"
        return InteractionSpec(TITLE, (), "", data=data, asked=asked, path=path)

    def ready(self, plan: TablePlan) -> bool:
        """Once it was measured."""
        assert isinstance(plan.spec, InteractionSpec)
        return plan.spec.path.exists()

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> Interaction:
        """As it is kept, measured where it is not."""
        spec = plan.spec
        assert isinstance(spec, InteractionSpec)
        if not spec.path.exists():
            assert spec.data is not None
            spec.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(spec.path, {**spec.asked, "found": measured(spec.data).as_dict()})
        kept = read_json(spec.path)["found"]
        lines = tuple(Line(**line) for line in kept["lines"])
        named = {name: tuple(kept[name]) for name in ("metrics", "notes")}
        return Interaction(**{**kept, **named, "lines": lines})

    def sheets(self, results: Interaction) -> list[Sheet]:
        """The models, then the shuffled ones."""
        names = ["model", "C", *results.metrics, f"Δ {results.primary}", "95 % (samples)", "Δ to"]
        rows = [cells(results, line) for line in results.lines]
        count = sum(line.against != CONCAT for line in results.lines)
        return [Sheet(f"{TITLE}, {results.dataset}", names, [rows[:count], rows[count:]], captions(results))]

    def records(self, results: Interaction) -> list[Record]:
        """One a model and metric."""
        found: list[Record] = []
        for line in results.lines:
            tested = {"against": line.against, "low": line.low, "high": line.high}
            for metric, value in line.test.items():
                shared = {"dataset": results.dataset, "model": line.label, "C": line.strength, "metric": metric}
                compared = tested if metric == results.primary else dict.fromkeys(tested)
                found.append({**shared, "value": value, **compared})
        return found


def measured(data: TrainingData) -> Interaction:
    """All rows of a dataset's table."""
    task = data.task
    splits = {**data.splits, "train": evenly(data.splits["train"], TRAIN_LIMIT)}
    targets = {split: data.targets[rows] for split, rows in splits.items()}
    vectors = flat_vectors(data.features, splits)
    there = {split: presence(data, rows) for split, rows in splits.items()}
    alone = {m: best_probe(task, only(vectors, m), targets, STEPS) for m in data.features}
    parts = {split: probabilities(alone, vectors, split) for split in ("val", "test")}
    weights = tuned(parts["val"], there["val"], targets["val"])
    concat = best_probe(task, vectors, targets, STEPS)
    views: dict[str, Views] = {
        **{m: probe.predict({m: vectors["test"][m]}) for m, probe in alone.items()},
        LATE: mixed(parts["test"], there["test"], np.ones(len(alone))),
        TUNED: mixed(parts["test"], there["test"], weights),
        CONCAT: concat.predict(vectors["test"]),
    }
    groups = groups_in(data)
    probes = {**alone, CONCAT: concat}
    lines = [line(task, views, targets["test"], label, LATE, groups, probes.get(label)) for label in views]
    lines += [shuffled(task, concat, vectors, targets["test"], m, how) for m in data.features for how in IN_CLASS]
    return Interaction(
        dataset=data.card.name,
        primary=task.primary,
        metrics=columns(task.primary, data.card.metrics, lines[0].test),
        lines=tuple(lines),
        weights=dict(zip(alone, map(float, weights), strict=True)),
        tokens={m: [flat_tokens(store), store.dim] for m, store in data.features.items()},
        samples={split: len(rows) for split, rows in splits.items()},
        notes=data.notes,
    )


def only(vectors: Vectors, modality: str) -> Vectors:
    """One modality's."""
    return {split: {modality: of[modality]} for split, of in vectors.items()}


def presence(data: TrainingData, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N, M) which modalities a sample has; one with none counts as having all, and is guessed without any."""
    there = np.stack([present_lengths(store)[rows] > 0 for store in data.features.values()], axis=1)
    return np.asarray(there | ~there.any(axis=1, keepdims=True))


def probabilities(alone: Mapping[str, Probe], vectors: Vectors, split: str) -> NDArray[np.float64]:
    """(M, N, C) of the models of one modality."""
    found = [np.exp(probe.predict({m: vectors[split][m]})["logits"].astype(float)) for m, probe in alone.items()]
    return np.stack(found)


def mixed(parts: NDArray[np.float64], there: NDArray[np.bool_], weights: NDArray[np.float64]) -> Views:
    """The weighted mean of probabilities (M, N, C) over the modalities a sample has, (N, M), as logits."""
    shares = there * weights
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    mean = np.einsum("mnc,nm->nc", parts, shares)
    return {"logits": np.log(mean + 1e-12).astype(np.float32)}


def tuned(parts: NDArray[np.float64], there: NDArray[np.bool_], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """(M,) weights that sum to 1 and make the mixture's log-likelihood on validation greatest."""
    from scipy.optimize import minimize

    def softmax(free: NDArray[np.float64]) -> NDArray[np.float64]:
        exponents = np.exp(free - free.max())
        return np.asarray(exponents / exponents.sum())

    def misfit(free: NDArray[np.float64]) -> float:
        logits = mixed(parts, there, softmax(free))["logits"]
        return float(-logits[np.arange(len(targets)), targets].mean(dtype=float)) + 1e-3 * float(free @ free)

    found = minimize(misfit, np.zeros(len(parts)), method="Nelder-Mead", options={"maxiter": 400 * len(parts)})
    return softmax(found.x)


def line(
    task: Task, views: Mapping[str, Views], targets: NDArray[Any], label: str, against: str,
    groups: Sequence[str] | None, probe: Probe | None,
) -> Line:  # fmt: skip
    """A model's row, against another's."""
    scores = task.metrics(views[label], targets)
    strength, at_end = (None, False) if probe is None else (probe.strength, probe.at_end)
    if label == against:
        return Line(label, scores, strength, at_end)
    pair = [scored(task, views[name], targets) for name in (label, against)]
    low, high = interval(pair[0], pair[1], groups) or (None, None)
    return Line(label, scores, strength, at_end, against, low, high)


def scored(task: Task, views: Views, targets: NDArray[Any]) -> SampleScores | Recomputed:
    """The primary metric sample by sample."""
    return task.sample_scores({**{k: np.asarray(v) for k, v in task.predictions(views).items()}, "target": targets})


def interval(
    one: SampleScores | Recomputed, other: SampleScores | Recomputed, groups: Sequence[str] | None
) -> tuple[float, float] | None:
    """95 % over test samples of one - other."""
    if isinstance(one, SampleScores) and isinstance(other, SampleScores):
        return bootstrap(differences([(one, other)]), groups)
    assert isinstance(one, Recomputed)
    assert isinstance(other, Recomputed)
    return recomputed([(one, other)], groups)


def shuffled(task: Task, concat: Probe, vectors: Vectors, targets: NDArray[np.int64], modality: str, how: str) -> Line:
    """The side by side model's metrics with one modality shuffled among the test samples, the mean of ten times."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(SHUFFLES):
        rows = generator.permutation(len(targets))
        if IN_CLASS[how]:
            # The shuffled rows, class by class, into the places of the class.
            rows = rows[np.argsort(targets[rows], kind="stable")]
            rows = rows[np.argsort(np.argsort(targets, kind="stable"))]
        moved = {**vectors["test"], modality: vectors["test"][modality][rows]}
        found.append(task.metrics(concat.predict(moved), targets))
    mean = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return Line(f"{CONCAT}, {modality} shuffled {how}", mean, against=CONCAT)


def cells(results: Interaction, line: Line) -> list[str]:
    """One row as text."""
    strength = "" if line.strength is None else f"{line.strength:g}" + (" (end)" if line.at_end else "")
    difference = results.difference(line)
    gap = "" if difference is None else f"{100 * difference:+.2f}"
    over = "" if line.low is None or line.high is None else f"{100 * line.low:+.2f} to {100 * line.high:+.2f}"
    return [line.label, strength, *(percent(line.test[m]) for m in results.metrics), gap, over, line.against]


def captions(results: Interaction) -> list[str]:
    """What stands under the table."""
    samples = ", ".join(f"{results.samples[split]:,} {split}" for split in SPLITS)
    laid = ", ".join(f"{m} {tokens} x {dim}" for m, (tokens, dim) in results.tokens.items())
    weights = ", ".join(f"{m} {weight:.2f}" for m, weight in results.weights.items())
    ends = [line.label for line in results.lines if line.at_end]
    return [
        f"{results.dataset}, test split ({samples}); all numbers times 100. 95 %: BCa bootstrap over test samples.",
        f"Logistic regression, C by validation {results.primary}, the range widened while its end was the best"
        + (f"; it ended there for {', '.join(ends)}." if ends else "; none was an end of it."),
        f"Features, tokens x width, laid end to end: {laid}. Weights of the tuned late fusion: {weights}.",
        f"Shuffled: the mean of {SHUFFLES} shuffles of one modality among the test samples, against {CONCAT}.",
        *(f"note: {note}" for note in results.notes),
    ]


STUDY = InteractionStudy()
