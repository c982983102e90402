"""How strongly each modality's own parameters are pulled: gradient norms by modality, averaged over an epoch.

Measured is the L2 norm of the gradient that a step of the optimiser brings to the parameters only this modality has
(`Method.modality_parameters`: its trunk), before clipping. Methods that change gradients or steps by hand are measured
before they do (OGM-GE, MLA's head); only MMPareto is measured after, because its integrated gradient is its gradient.
An epoch's number is the mean over the steps that reach the modality: one a batch, for MLA the modality's own turn, for
ReconBoost its turn and the common step.

Cost: nothing but keeping what clipping computes anyway, one norm a parameter; the sums are made once an epoch. No
number of the training changes. Without clipping (`--set clip=0`) the norms are computed for this alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class GradientNorms:
    """Takes every step's norms, and gives their means by modality once an epoch.

    owned: modality -> the parameters that are its own.
    """

    def __init__(self, owned: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.owned = {modality: frozenset(map(id, parameters)) for modality, parameters in owned.items()}
        # By which parameters had a gradient: all steps of a kind are one matrix in the end.
        self.seen: dict[tuple[int, ...], list[Tensor]] = {}

    def __call__(self, parameters: Sequence[nn.Parameter], norms: Tensor) -> None:
        """Keep one step: norms (P,) of the gradients of P parameters, left on their device."""
        self.seen.setdefault(tuple(map(id, parameters)), []).append(norms)

    def take(self) -> dict[str, float]:
        """Modality -> mean norm over the steps since the last call; without modalities that no step reached."""
        sums: dict[str, float] = {}
        steps: dict[str, int] = {}
        for parameters, several in self.seen.items():
            squares = torch.stack(several).double().square().cpu()
            for modality, own in self.owned.items():
                places = [place for place, parameter in enumerate(parameters) if parameter in own]
                if places:
                    sums[modality] = sums.get(modality, 0.0) + float(squares[:, places].sum(dim=1).sqrt().sum())
                    steps[modality] = steps.get(modality, 0) + len(several)
        self.seen.clear()
        return {modality: sums[modality] / steps[modality] for modality in self.owned if modality in sums}
