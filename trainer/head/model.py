"""PgM: N iterations of partitioner and learners over any number of modalities, with their losses (section 3).

Decided: the learners' output feeds the next iteration, the losses, the decoder and the fusion; the losses of an
iteration use its output. All modalities run together in one flat token matrix (layout.py), u and p as one tensor
(2, T, D) whose learners run side by side (stacked.py); decoder and classifiers take all iterations at once, after the
last. Without losses (in eval mode, unless asked for) they do not run at all. Cost at width 768: 22.4M parameters, all
shared.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import Parameter
from torch.utils.checkpoint import checkpoint

from ...cache.errors import UserError
from ...cache.nearest import did_you_mean
from .config import PgMConfig
from .decoder import build_decoder
from .layout import TokenLayout, joined
from .learner import Learner
from .losses import Classifiers, Weights, modality_of_row, reconstruction_loss
from .partitioner import Gates, Partitioner, partition
from .stacked import side_by_side

SHARED = "shared"
Given = Mapping[str, Tensor | None]  # the modalities of a call, with their masks
Refine = Callable[[Tensor, Tensor, TokenLayout], Tensor]


class PgMOutput(NamedTuple):
    """What `PgM.forward` returns.

    uni, paired: modality -> (B, S_m, D), zeros in the padding; empty for a dropped branch. A modality left out of the
        call is left out here, in the gates and in the reconstructions too: FusionHead takes it for missing.
    gates: one {modality: Gates} an iteration, (B, 1, D) each ((B, S_m, D) for gate_scope="token").
    reconstructions: modality -> (B, S_m, D), the last iteration's (eq. 7); empty when losses were not computed.
    losses: "ufc", "pfc", "upr" -> scalar, summed over iterations (a removed module's is zero); empty when not computed.
    masks: the masks of the call, for FusionHead: which tokens are real, and which samples have a modality.
    """

    uni: dict[str, Tensor]
    paired: dict[str, Tensor]
    gates: tuple[dict[str, Gates], ...]
    reconstructions: dict[str, Tensor]
    losses: dict[str, Tensor]
    masks: dict[str, Tensor]

    @property
    def pretraining_loss(self) -> Float[Tensor, ""]:
        """L^P (eq. 11). Raises UserError when the losses were not computed."""
        if not self.losses:
            raise UserError(
                "This output holds no losses: PgM computes them in training mode, or with forward(..., losses=True)."
            )
        return self.losses["ufc"] + self.losses["pfc"] + self.losses["upr"]


class PgM(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="pgm",
    tags=["multimodal"],
    license="apache-2.0",
):
    """The PgM head. tokens {modality: (B, S_m, D_m)} -> PgMOutput.

    Example:
        head = PgM(PgMConfig.small({"text": 768, "vision": 512}))
        out = head({"text": text, "vision": vision}, {"text": text_mask})
    """

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.config = config
        names = tuple(config.modalities)
        self.projections = nn.ModuleDict(
            {m: nn.Linear(width, config.dim) for m, width in config.modalities.items() if width != config.dim}
        )
        split = "partitioner" not in config.without
        partitioners = (SHARED,) if config.share_partitioner else names
        learners = (SHARED,) if config.share_learners else names
        decoders = (SHARED,) if config.share_decoder else names

        def wanted(module: str) -> bool:
            return split and module not in config.without

        self.partitioners = nn.ModuleDict({m: Partitioner(config) for m in partitioners if split})
        self.uni_learners = nn.ModuleDict({m: Learner(config) for m in learners if wanted("uni_learner")})
        self.paired_learners = nn.ModuleDict({m: Learner(config) for m in learners if wanted("paired_learner")})
        self.decoders = nn.ModuleDict({m: build_decoder(config) for m in decoders if wanted("decoder")})
        self.classifiers = Classifiers(config) if split else None

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """The paper's three groups (section 4.2): learners (1e-4), decoder (1e-3) and the rest (3e-4)."""
        groups: dict[str, list[Parameter]] = {"learners": [], "decoder": [], "rest": []}
        for name, parameter in self.named_parameters():
            module = name.split(".")[0]
            key = "learners" if module.endswith("_learners") else "decoder" if module == "decoders" else "rest"
            groups[key].append(parameter)
        return groups

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "B _ _"]],
        masks: Mapping[str, Bool[Tensor, "B _"]] | None = None,
        losses: bool | None = None,
        totals: Mapping[str, int] | None = None,
    ) -> PgMOutput:
        """Partition and refine every modality (eqs. 1-11).

        tokens: modality -> (B, S_m, D_m), any S_m; a modality left out is missing for every sample.
        masks: modality -> (B, S_m), True at real tokens; a row of False is a missing modality; none given: all real.
        losses: compute reconstructions and losses; by default in training mode only.
        totals: modality -> number of True in its mask, where known: on a GPU padding is then left out without a wait.
        Raises UserError for unknown modalities and shapes that do not fit.
        """
        given = {m: (masks or {}).get(m) for m in self.config.modalities if m in tokens}
        layout, original = self._embed(tokens, masks or {}, totals or {})
        compute = self.training if losses is None else losses
        if "partitioner" in self.config.without:
            return self._unpartitioned(layout, original, given, compute)
        partitioner, learn = self._partitioner(), self._learners()
        feed = features = original.expand(2, -1, -1)
        gates, outputs = [], []
        for i in range(self.config.iterations):
            gate = self._gates(partitioner, feed, original, layout)
            gates.append(gate)
            both = torch.stack(gate)
            both = both if self.config.gate_scope == "token" else layout.broadcast(both.flatten(1, 2))
            feed = partition(feed, original, both)
            # With eq. 3 fed back, only the losses need the learners before the last iteration.
            if self.config.feedback == "learner" or compute or i == self.config.iterations - 1:
                features = learn(feed, both, layout)
                outputs.append(features)
            if self.config.feedback == "learner":
                feed = features
        if not compute:
            return self._output(layout, given, features, gates, None, [])
        each = torch.stack(outputs)
        rebuilt = self._decode(each, layout)
        return self._output(layout, given, features, gates, rebuilt, self._losses(each, rebuilt, original, layout))

    def _embed(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], totals: Mapping[str, int]
    ) -> tuple[TokenLayout, Float[Tensor, "T D"]]:
        """I: each modality's real tokens, projected to `dim` and normalised without weights, in one flat matrix."""
        batch, device = self._check(tokens, masks)
        dtype = self._dtype()
        inputs, present = [], []
        for name, width in self.config.modalities.items():
            x = tokens.get(name)
            missing = x is None
            mask = torch.zeros(batch, 1, dtype=torch.bool, device=device) if missing else masks.get(name)
            inputs.append(torch.zeros(batch, 1, width, dtype=dtype, device=device) if x is None else x)
            present.append(mask)
        known = [totals.get(m) if m in tokens else 0 for m in self.config.modalities]
        layout = TokenLayout.build([x.shape[1] for x in inputs], present, batch, device, known)
        flat = []
        for name, x, segment in zip(self.config.modalities, inputs, layout.segments, strict=True):
            x = x.to(dtype)
            if segment.mask is not None and segment.index is None:
                # Whatever lies in the padding, NaN included, must not reach a real token.
                x = x.masked_fill(~segment.mask.unsqueeze(2), 0)
            x = segment.pack(x)
            flat.append(self.projections[name](x) if name in self.projections else x)
        # The partitioner's softmax freezes at the middle on features of small scale, so the scale is fixed here.
        return layout, F.layer_norm(joined(flat), (self.config.dim,))

    def _dtype(self) -> torch.dtype:
        for parameter in self.parameters():
            return parameter.dtype
        return torch.get_default_dtype()

    def _check(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[int, torch.device]:
        known = self.config.modalities
        for name in [*tokens, *masks]:
            if name not in known:
                built = f"this PgM was built for {', '.join(known)}"
                raise UserError(f"Unknown modality {name!r}; {built}.{did_you_mean(name, known)}")
        if not tokens:
            raise UserError(f"No tokens were given; expected one tensor for {', '.join(known)}.")
        first = next(iter(tokens.values()))
        for name, x in tokens.items():
            if x.dim() != 3 or x.shape[2] != known[name] or x.shape[0] != first.shape[0] or x.shape[1] == 0:
                expected = f"({first.shape[0]}, S, {known[name]}) with S at least 1"
                raise UserError(f"Tokens of {name!r} have shape {tuple(x.shape)}; expected {expected}.")
            mask = masks.get(name)
            if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
                found = f"{mask.dtype} of shape {tuple(mask.shape)}"
                raise UserError(f"The mask of {name!r} is {found}; expected torch.bool of shape {tuple(x.shape[:2])}.")
        return first.shape[0], first.device

    def _partitioner(self) -> Callable[..., Gates]:
        """(M, B, D) or, with gate_scope="token", (T, D) means of u, p and I -> gates of the same shape."""
        parts = [cast(Partitioner, part) for part in self.partitioners.values()]
        return parts[0] if self.config.gate_scope == "token" else side_by_side(parts)

    def _gates(
        self, partitioner: Callable[..., Gates], feed: Float[Tensor, "2 T D"], original: Tensor, layout: TokenLayout
    ) -> Gates:
        """Eq. 1 for all modalities: (M, B, D) gates, or (T, D) for gate_scope="token"."""
        if self.config.gate_scope == "sample":
            u, p = torch.unflatten(layout.mean(feed), 1, (-1, layout.batch)).unbind()
            # Only this reading looks at I itself.
            return partitioner(u, p, layout.mean(original).view_as(u) if self.config.gate_logits == "shared" else u)
        u, p = feed.unbind()
        if self.config.share_partitioner:
            return partitioner(u, p, original)
        parts = zip(*(layout.by_modality(x) for x in (u, p, original)), strict=True)
        named = zip(self.config.modalities, parts, strict=True)
        each = [cast(Partitioner, self.partitioners[m])(*part) for m, part in named]
        return Gates(*(joined(list(gates)) for gates in zip(*each, strict=True)))

    def _learners(self) -> Refine:
        """u and p (2, T, D), their gates and the layout -> u and p refined (2, T, D)."""
        if self.config.share_learners:
            return self._both(SHARED)
        each = [self._both(m) for m in self.config.modalities]

        def apart(x: Tensor, gates: Tensor, layout: TokenLayout) -> Tensor:
            parts = zip(each, layout.by_modality(x), layout.by_modality(gates), strict=True)
            return joined([learn(y, g, layout.of_modality(i)) for i, (learn, y, g) in enumerate(parts)], 1)

        return apart

    def _both(self, name: str) -> Refine:
        """The two learners of one name side by side; the identity where one is removed."""
        branches = (self.uni_learners, self.paired_learners)
        there = [i for i, learners in enumerate(branches) if name in learners]
        run = side_by_side([branches[i][name] for i in there]) if there else None

        def learn(x: Tensor, gates: Tensor, layout: TokenLayout) -> Tensor:
            if run is None:
                return x
            if len(there) == 2:
                return self._recomputed(run, x, gates, layout)
            one = self._recomputed(run, x[there[0]], gates[there[0]], layout)
            return torch.stack([one, x[1]] if there == [0] else [x[0], one])

        return learn

    def _recomputed(self, part: Callable[..., Tensor], *args: Any) -> Tensor:
        """part(*args), whose activations are made again in the backward pass where checkpointing is on."""
        if self.config.checkpointing and self.training and torch.is_grad_enabled():
            y: Tensor = checkpoint(part, *args, use_reentrant=False)
            return y
        return part(*args)

    def _decode(self, features: Float[Tensor, "N 2 T D"], layout: TokenLayout) -> Float[Tensor, "N T D"] | None:
        """Eq. 7 for all modalities and iterations; None without a decoder."""
        if not self.decoders:
            return None
        kept = [("uni", "paired").index(b) for b in self.config.branches]
        branches = features if len(kept) == 2 else features[:, kept[0] : kept[0] + 1]
        if self.config.share_decoder:
            return self._recomputed(self.decoders[SHARED], branches, layout)
        parts = zip(self.config.modalities, layout.by_modality(branches), strict=True)
        each = [self._recomputed(self.decoders[m], x, layout.of_modality(i)) for i, (m, x) in enumerate(parts)]
        return joined(each, 1)

    def _losses(
        self, features: Float[Tensor, "N 2 T D"], rebuilt: Tensor | None, original: Tensor, layout: TokenLayout
    ) -> list[Float[Tensor, ""]]:
        """UFC, PFC and UPR (eqs. 8-10), summed over the iterations; zero for what is removed."""
        assert self.classifiers is not None
        zero, without = original.new_zeros(()), self.config.without
        weights, modality = Weights(layout, original.dtype), modality_of_row(layout)
        if self.config.loss_level == "pooled":
            (u, p), mean = layout.mean(features).unbind(1), weights.mean
        else:
            (u, p), mean = features.unbind(1), layout.shares(weights.mean)
            modality = layout.broadcast(modality.unsqueeze(1)).squeeze(1)
        ufc = zero if "uni_learner" in without else self.classifiers.uni(u, modality, mean)
        alone = self.config.pfc == "paired" or (self.config.ablation == "drop" and "uni" not in self.config.branches)
        pfc = zero if "paired_learner" in without else self.classifiers.paired(None if alone else u, p, mean)
        upr = zero if rebuilt is None else reconstruction_loss(rebuilt, original, layout.shares(weights.sum))
        return [ufc, pfc, upr]

    def _named(self, flat: Float[Tensor, "*G T D"], layout: TokenLayout, given: Given) -> dict[str, Tensor]:
        named = zip(self.config.modalities, layout.padded(flat), strict=True)
        return {m: x for m, x in named if m in given}

    def _named_gates(self, gates: Gates, layout: TokenLayout, given: Given) -> dict[str, Gates]:
        if self.config.gate_scope == "token":
            parts = [layout.padded(gates.uni), layout.padded(gates.paired)]
        else:
            parts = [list(gate.unsqueeze(2).unbind()) for gate in gates]
        return {m: Gates(a, b) for m, a, b in zip(self.config.modalities, *parts, strict=True) if m in given}

    def _output(
        self,
        layout: TokenLayout,
        given: Given,
        features: Float[Tensor, "2 T D"],
        gates: list[Gates],
        rebuilt: Float[Tensor, "N T D"] | None,
        losses: list[Tensor],
    ) -> PgMOutput:
        named = {m: x.unbind() for m, x in self._named(features, layout, given).items()}
        branches = self.config.branches
        return PgMOutput(
            uni={m: u for m, (u, _) in named.items()} if "uni" in branches else {},
            paired={m: p for m, (_, p) in named.items()} if "paired" in branches else {},
            gates=tuple(self._named_gates(g, layout, given) for g in gates),
            reconstructions={} if rebuilt is None else self._named(rebuilt[-1], layout, given),
            losses=dict(zip(("ufc", "pfc", "upr"), losses, strict=True)) if losses else {},
            masks={m: mask for m, mask in given.items() if mask is not None},
        )

    def _unpartitioned(self, layout: TokenLayout, original: Tensor, given: Given, compute: bool) -> PgMOutput:
        """Table 3 without partitioner: u = p = I, and nothing to pre-train."""
        zeros = [original.new_zeros(()) for _ in range(3)] if compute else []
        return self._output(layout, given, original.expand(2, -1, -1), [], None, zeros)
