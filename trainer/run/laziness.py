"""How lazily a joint model uses each of its modalities, measured on the test split from a finished run's weights.

Shown the modalities of a subset S only, the others missing (`Inputs.only`: skipped, never zero-filled), the model
scores v(S). From all 2^M - 1 subsets follow

  inside   v({m}), what the joint model makes of m alone; held against the uni-modally trained twin `single:m`, the
           difference is the under-use of m
  shapley  phi_m = sum_{S not with m} |S|! (M - |S| - 1)! / M! (v(S + m) - v(S)), m's part of the score (Shapley 1953);
           v of the empty set is the majority guess's score, so that the phi sum to what the model adds to it
  gap      ||mean_i h_m(i) / |h_m(i)| - mean_i h_n(i) / |h_n(i)||| , the distance between the centres of two modalities'
           vectors on the unit sphere (Liang et al., "Mind the Gap", NeurIPS 2022), each centre over the samples that
           have the modality, the mean over pairs; h_m is `Method.modality_vectors`: the modality's trunk output, for
           PgM the fused vector of m alone. None where vectors share no space: members trained apart (ensemble).

What is measured is kept in the run's folder as laziness-1.json, sealed; the number in its name rises when a measure
changes. Every subset is one forward pass over each batch, and the batches are made once for all subsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import CorruptStore, UserError
from .files import read_sealed_json, write_sealed_json
from .runs import Run

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.feed import Feed
    from ..tasks import Task
    from .inference import Loaded
    from .request import Resolved

VERSION = 1
MOST = 4  # modalities: 15 subsets
Subset = frozenset[str]


@dataclass(frozen=True)
class Laziness:
    """scores: subset of the modalities -> metric -> value on the test split; gap: None where there is none."""

    scores: Mapping[Subset, Mapping[str, float]]
    gap: float | None

    def of(self, metric: str) -> dict[Subset, float]:
        """v(S) of every non-empty subset, in one metric."""
        return {shown: values[metric] for shown, values in self.scores.items()}


class Measure:
    """What a study of laziness measures of a run (studies/engine/plan.py): nothing of one on a single modality."""

    def there(self, run: Run) -> bool:
        return len(run.config["widths"]) < 2 or kept(run) is not None

    def make(self, resolved: Resolved) -> None:
        keep(resolved.run, measure(resolved))


def subsets(modalities: Sequence[str]) -> Iterator[Subset]:
    """Every non-empty subset, small ones first."""
    for size in range(1, len(modalities) + 1):
        yield from (frozenset(chosen) for chosen in combinations(modalities, size))


def path_of(run: Run) -> Path:
    """Where a run's measures lie."""
    return run.path / f"laziness-{VERSION}.json"


def keep(run: Run, found: Laziness) -> None:
    """Write the measures into the run's folder, whole or not at all."""
    scores = [{"shown": sorted(shown), "metrics": dict(values)} for shown, values in found.scores.items()]
    write_sealed_json(path_of(run), {"run": run.id, "scores": scores, "gap": found.gap})


def kept(run: Run) -> Laziness | None:
    """What was measured of a run; None where nothing was, or where the file is damaged and has to be made again."""
    try:
        found = read_sealed_json(path_of(run))
    except (FileNotFoundError, CorruptStore):
        return None
    return Laziness({frozenset(entry["shown"]): entry["metrics"] for entry in found["scores"]}, found["gap"])


def measure(resolved: Resolved) -> Laziness:
    """Evaluate a finished run's weights on every subset of its modalities.

    Raises UserError for a retrieval task, for one modality or more than 4, and without test samples.
    """
    from .inference import load
    from .threads import fitting_threads
    from .training import feed_of

    data = resolved.data
    check(tuple(data.features), type(data.task), len(data.splits["test"]))
    loaded = load(resolved.run, str(resolved.device), data.task)
    with fitting_threads(loaded.model, resolved.device):
        return measured(loaded, data.task, feed_of(resolved, "test", "auto"))


def check(modalities: Sequence[str], task: type[Task], samples: int = 1) -> None:
    """Raise UserError where laziness has no meaning, or its measuring no end."""
    if task.cross_modal:
        raise UserError(
            "Laziness is how little a joint model makes of one of its modalities, and a retrieval dataset's two "
            "modalities are query and gallery: neither can be left out. Choose a classification or sentiment dataset."
        )
    if len(modalities) < 2:
        raise UserError(
            f"Balance needs at least two modalities, and {modalities[0]} is the only one here. Extract another, or "
            "leave out --modality."
        )
    if len(modalities) > MOST:
        raise UserError(
            f"There are {len(modalities)} modalities, and every subset of them would have to be evaluated "
            f"({2 ** len(modalities) - 1}); choose at most {MOST} with --modality NAME."
        )
    if not samples:
        raise UserError("Laziness is measured on the test split, and this dataset has no test samples.")


def measured(loaded: Loaded, task: Task, feed: Feed) -> Laziness:
    """One pass over a split's batches: the task's metrics of every subset, and the gap."""
    import torch

    from .evaluation import BATCH

    model, modalities = loaded.model.eval(), tuple(loaded.widths)
    order = feed.evaluation_order(BATCH)
    back = np.argsort(np.concatenate(order))
    views: dict[Subset, dict[str, list[Tensor]]] = {shown: {} for shown in subsets(modalities)}
    centres = Centres()
    with torch.inference_mode(), loaded.machine.autocast():
        for batch in feed.batches(order):
            for shown, parts in views.items():
                for name, value in task.views(model, batch.inputs.only(*shown)).items():
                    parts.setdefault(name, []).append(value.float())
            for modality, vectors in model.method.modality_vectors(model.prepared(batch.inputs)).items():
                centres.add(modality, vectors[batch.inputs.present(modality)])
    targets = feed.targets.cpu().numpy()
    scores = {}
    for shown, parts in views.items():
        whole = {name: torch.cat(values).cpu().numpy()[back] for name, values in parts.items()}
        scores[shown] = task.metrics(whole, targets)
    return Laziness(scores, centres.gap())


class Centres:
    """The mean of each modality's vectors after scaling each to length 1."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def add(self, modality: str, vectors: Tensor) -> None:
        """Some samples' vectors (N, d)."""
        import torch

        units = torch.nn.functional.normalize(vectors.double(), dim=1)
        self.sums[modality] = self.sums.get(modality, 0.0) + units.sum(dim=0)
        self.counts[modality] = self.counts.get(modality, 0) + len(units)

    def gap(self) -> float | None:
        """Mean distance between two centres; None for fewer than two modalities or different widths."""
        centres = [self.sums[m] / self.counts[m] for m in self.sums if self.counts[m]]
        if len(centres) < 2 or len({len(centre) for centre in centres}) > 1:
            return None
        return float(np.mean([float((one - other).norm()) for one, other in combinations(centres, 2)]))


def shapley(scores: Mapping[Subset, float], nothing: float) -> dict[str, float]:
    """phi_m of every modality from v(S) of every non-empty subset and v({}); they sum to v(all) - v({})."""
    modalities = sorted(frozenset[str]().union(*scores))
    count = len(modalities)
    worth = {frozenset[str](): nothing, **scores}
    found = dict.fromkeys(modalities, 0.0)
    for modality in modalities:
        others = [m for m in modalities if m != modality]
        for without in (frozenset[str](), *subsets(others)):
            weight = factorial(len(without)) * factorial(count - len(without) - 1) / factorial(count)
            found[modality] += weight * (worth[without | {modality}] - worth[without])
    return found


def shapley_shares(scores: Mapping[Subset, float], nothing: float) -> dict[str, float] | None:
    """phi_m over their sum; None for a model that does not beat the majority guess, as there is nothing to share."""
    parts = shapley(scores, nothing)
    total = sum(parts.values())
    return {m: part / total for m, part in parts.items()} if total > 1e-9 else None


def gradient_norms(run: Run) -> dict[str, list[float]]:
    """Modality -> its gradient norm in every epoch trained on labels; empty for runs older than the record."""
    found: dict[str, list[float]] = {}
    for entry in run.metrics:
        if "val" in entry:
            for modality, norm in entry.get("gradients", {}).items():
                found.setdefault(modality, []).append(norm)
    return found


def gradient_means(run: Run) -> dict[str, float]:
    """Modality -> the mean of these norms over the run."""
    return {modality: float(np.mean(norms)) for modality, norms in gradient_norms(run).items()}
