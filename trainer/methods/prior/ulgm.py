"""ULGM: uni-modal labels made up from where a sample's features lie (Self-MM, Yu et al., AAAI 2021, section 3.3).

Every training sample keeps, for the fusion m and for each modality s, its last feature F and a label y; all labels
begin as the human one, and the fusion's stays so. The centres of a branch are the means of the stored features of all
training samples whose label there is positive, or negative. With D_p, D_n a feature's distances to them,

    alpha = (D_n - D_p) / (D_p + eps)                                 relative distance, of the branch and of the fusion
    new_s = 1/2 (alpha_s / (alpha_m + eps)) y_m + 1/2 (y_m + alpha_s - alpha_m),  clamped to [-H, H]
    y_s  <- (i - 1) / (i + 1) y_s + 2 / (i + 1) new_s                 from epoch i = 2 on

Decided, as in the authors' later code (MMSA): plain Euclidean distances (the paper divides them by the root of the
width, which alpha does not notice), centres without the samples labelled zero, labels before features before centres.
A modality that a sample lacks has no feature, no part in the centres and keeps the human label. Where a branch has no
positive or no negative sample its labels stay: the published code makes them nan.
Costs N (sum of the widths + branches) numbers, in buffers, because an interrupted run must find them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

EPSILON = 1e-8
FUSION = "fusion"


class Centres(NamedTuple):
    """positive, negative: (d,); known: () bool, whether there was a sample of each sign."""

    positive: Tensor
    negative: Tensor
    known: Tensor

    def nearness(self, features: Tensor) -> Tensor:
        """alpha of each feature: (B,) from (B, d); positive where the positive centre is the nearer one."""
        near: Tensor = torch.linalg.vector_norm(features - self.positive, dim=1)
        far: Tensor = torch.linalg.vector_norm(features - self.negative, dim=1)
        return (far - near) / (near + EPSILON)


class ULGM(nn.Module):
    """Labels (N,), features (N, d) and whether there is one (N,), for each branch; `prepare` lays them out.

    widths: branch -> d, FUSION among them. bound: H.
    """

    def __init__(self, widths: Mapping[str, int], bound: float) -> None:
        super().__init__()
        self.widths, self.bound = dict(widths), bound

    def prepare(self, targets: Tensor) -> None:
        """Tables for training samples with these human labels (N,)."""
        for branch, width in self.widths.items():
            self.register_buffer(f"labels_{branch}", targets.float().clone())
            self.register_buffer(f"features_{branch}", targets.new_zeros(len(targets), width, dtype=torch.float32))
            self.register_buffer(f"stored_{branch}", torch.zeros_like(targets, dtype=torch.bool))

    def labels(self, branch: str) -> Tensor:
        """(N,) the branch's labels as they stand."""
        return self.get_buffer(f"labels_{branch}")

    def weights(self, branch: str, samples: Tensor) -> Tensor:
        """(B,) tanh |y_s - y_m|: how much a modality's own label counts; 0 for all of epoch 1."""
        return (self.labels(branch)[samples] - self.labels(FUSION)[samples]).abs().tanh()

    def centres(self, branch: str) -> Centres:
        """The means of all stored features with a positive, and with a negative label."""
        labels, features = self.labels(branch), self.get_buffer(f"features_{branch}")
        stored = self.get_buffer(f"stored_{branch}")
        sides = torch.stack([(labels > 0) & stored, (labels < 0) & stored])
        counts = sides.sum(dim=1)
        means = sides.to(features.dtype) @ features / counts.clamp(min=1).unsqueeze(1)
        return Centres(means[0], means[1], counts.gt(0).all())

    @torch.no_grad()
    def observe(
        self, samples: Tensor, features: Mapping[str, Tensor], present: Mapping[str, Tensor], epoch: int
    ) -> None:
        """A batch's new labels, from epoch 2 on, and then its new features.

        samples (B,): positions among the training samples. features: branch -> (B, d). present: modality -> (B,) bool.
        epoch: counted from 1.
        """
        if epoch > 1:
            self.relabel(samples, features, present, epoch)
        for branch, feature in features.items():
            has = present.get(branch, torch.ones_like(samples, dtype=torch.bool))
            table, stored = self.get_buffer(f"features_{branch}"), self.get_buffer(f"stored_{branch}")
            table[samples] = torch.where(has.unsqueeze(1), feature.detach().float(), table[samples])
            stored[samples] = has

    def relabel(
        self, samples: Tensor, features: Mapping[str, Tensor], present: Mapping[str, Tensor], epoch: int
    ) -> None:
        """The momentum update of every modality's labels."""
        fused = self.centres(FUSION)
        human, whole = self.labels(FUSION)[samples], fused.nearness(features[FUSION].detach().float())
        for branch in self.widths:
            if branch == FUSION:
                continue
            centres, labels = self.centres(branch), self.labels(branch)
            own = centres.nearness(features[branch].detach().float())
            new = new_labels(human, own, whole).clamp(-self.bound, self.bound)
            moved = (epoch - 1) / (epoch + 1) * labels[samples] + 2 / (epoch + 1) * new
            labels[samples] = torch.where(present[branch] & centres.known & fused.known, moved, labels[samples])


def new_labels(human: Tensor, own: Tensor, whole: Tensor) -> Tensor:
    """(B,) the made-up label, unclamped, of human labels y_m and the nearnesses alpha_s and alpha_m."""
    return 0.5 * own / (whole + EPSILON) * human + 0.5 * (human + own - whole)
