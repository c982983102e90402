"""Cross-modal retrieval with a fusion model, without leakage (spec A23).

A fused vector needs every modality and a query has one. Embedding queries or gallery from both members of a test pair
would solve the task by leakage. So: a query and a gallery item are embedded by the same network from ONE modality, the
other replaced by a learned null token, which modality dropout trains: every step shows the batch in full, and with each
modality alone. Loss: 10-way (C-way) cross-entropy on all passes, plus symmetric InfoNCE between the two single passes.
Costs three passes a step. Evaluation shows a pass one modality only, ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...cache.errors import UserError
from ..batch import Having, Inputs
from ..methods.base import MethodOutput
from ..protocol import Protocol
from . import metrics
from .base import Forward, Predictor, Task, Vectors, Views
from .classification import Classification
from .linear import Fit, class_probabilities
from .scores import Columns, SampleScores

TEMPERATURE = 0.1


class Retrieval(Task):
    """Find items of the same category in the other modality; targets (B,) int64 category."""

    name: ClassVar[str] = "retrieval"
    # 1: PgM's own losses ran, unused, in all three passes, and drew their dropout. 2: results had no recall; no number
    # moved, but what one name stands for is to be equal.
    version: ClassVar[int] = 3
    monitor = "map"
    primary = "map"
    cross_modal: ClassVar[bool] = True

    def __init__(self, classes: tuple[str, ...], modalities: tuple[str, ...]) -> None:
        if len(modalities) != 2:
            raise UserError(
                f"Retrieval goes from one modality to another and needs exactly two; here: {', '.join(modalities)}. "
                "Choose a fusion method (--method concat) or the modalities with --modalities a,b."
            )
        self.classes = classes
        self.outputs = len(classes)
        self.modalities = tuple(
            sorted(modalities, key=lambda m: (m == "text", m))
        )  # image before text, as tables print

    @classmethod
    def of(cls, classes: tuple[str, ...], modalities: tuple[str, ...], protocol: Protocol) -> Task:
        return cls(classes, modalities)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.float(), targets)

    def loss(
        self, forward: Forward, inputs: Inputs, targets: Tensor
    ) -> tuple[Tensor, MethodOutput, Mapping[str, Tensor]]:
        full = forward(inputs)
        # Only the full pass pretrains: rebuilding a batch of which a modality is hidden serves nobody.
        singles = [forward(inputs.only(m), losses=False) for m in self.modalities]
        cross_entropy = torch.stack([self.criterion(o.logits, targets) for o in (full, *singles)]).mean()
        both = inputs.having(*self.modalities)
        contrast = contrastive(singles[0].fused.float(), singles[1].fused.float(), both)
        return cross_entropy + contrast, full, {"ce": cross_entropy.detach(), "nce": contrast.detach()}

    def views(self, forward: Forward, inputs: Inputs) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for modality in self.modalities:
            fused = forward(inputs.only(modality)).fused
            # A sample without this modality cannot be embedded from it: nan marks it, and metrics leave it out.
            found[modality] = fused.float().masked_fill(~inputs.present(modality).unsqueeze(1), float("nan"))
        return found

    def metrics(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        first, second = self.modalities
        scores: dict[str, float] = {}
        found: dict[str, float] = {}
        for query, gallery, _, relevant in self.rankings(views, targets):
            found = metrics.retrieval_scores(relevant)
            scores |= {f"{metric}_{query}_to_{gallery}": value for metric, value in found.items()}
        for metric in found:
            scores[metric] = (scores[f"{metric}_{first}_to_{second}"] + scores[f"{metric}_{second}_to_{first}"]) / 2
        return {name: scores[name] for name in sorted(scores, key=lambda n: (n.count("_"), n))}

    def rankings(
        self, views: Views, targets: NDArray[Any]
    ) -> Iterator[tuple[str, str, NDArray[np.bool_], NDArray[np.bool_]]]:
        """Both directions: query and gallery modality, (N,) samples that are queries, (Q, G) relevance, best first.

        A sample that lacks a modality is neither a query in it nor in its gallery.
        """
        known = {m: np.asarray(~np.isnan(views[m]).any(axis=1)) for m in self.modalities}
        for query, gallery in (self.modalities, self.modalities[::-1]):
            asked, there = known[query], known[gallery]
            order = metrics.ranked(views[query][asked], views[gallery][there])
            yield query, gallery, asked, targets[there][order] == targets[asked][:, None]

    def predictions(self, views: Views) -> dict[str, Any]:
        return {f"embedding_{m}": views[m] for m in self.modalities}

    def sample_scores(self, predictions: Columns) -> SampleScores:
        """Average precision as a query, a part a direction, against the gallery that the metric has."""
        views = {m: predictions[f"embedding_{m}"] for m in self.modalities}
        values, counts = np.zeros((2, len(predictions["target"]), 2))
        for part, (_, _, asked, relevant) in enumerate(self.rankings(views, predictions["target"])):
            values[asked, part] = metrics.average_precision(relevant)
            counts[asked, part] = 1
        return SampleScores(values, counts)

    def constant(self, train: NDArray[Any], count: int) -> Views:
        logits = super().constant(train, count)["logits"]
        return dict.fromkeys(self.modalities, logits)

    def probed(self, vectors: Vectors, train: NDArray[Any], how: Fit) -> Predictor:
        """Each modality has its own model, and class probabilities are compared across modalities."""
        found = {m: class_probabilities({m: vectors[m]}, train, self.outputs, how) for m in self.modalities}
        return lambda asked: {m: predict({m: asked[m]}) for m, predict in found.items()}

    def alone(self) -> Task:
        return Classification(self.classes)


def contrastive(left: Tensor, right: Tensor, paired: Having) -> Tensor:
    """Symmetric InfoNCE over the samples of the batch that have both modalities; 0 when fewer than two have."""
    left, right = paired.of(left), paired.of(right)
    if paired.count < 2:
        return left.sum() * 0.0
    scores = nn.functional.normalize(left, dim=1) @ nn.functional.normalize(right, dim=1).T / TEMPERATURE
    index = torch.arange(len(scores), device=scores.device)
    return (nn.functional.cross_entropy(scores, index) + nn.functional.cross_entropy(scores.T, index)) / 2
