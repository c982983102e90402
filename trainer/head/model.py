"""PgM: N iterations of partitioner and learners over any number of modalities, with their losses (section 3).

Decided: the learners' output feeds the next iteration, the losses, the decoder and the fusion; the losses of an
iteration use its output. All modalities run together in one flat token matrix (layout.py). Without losses (in eval
mode, unless asked for) decoder and classifiers do not run at all. Cost at width 768: 22.4M parameters, all shared.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

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
from .losses import Classifiers, reconstruction_loss
from .partitioner import Gates, Partitioner, gates_of, partition

SHARED = "shared"
Given = Mapping[str, Tensor | None]  # the modalities of a call, with their masks


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
        u = p = feed_u = feed_p = original
        gates, sums = [], [original.new_zeros(()) for _ in range(3)]
        rebuilt: Tensor | None = None
        for i in range(self.config.iterations):
            gate = self._gates(feed_u, feed_p, original, layout)
            gates.append(gate)
            feed_u, feed_p = self._partition(feed_u, feed_p, original, gate, layout)
            # With eq. 3 fed back, only the losses need the learners before the last iteration.
            if self.config.feedback == "learner" or compute or i == self.config.iterations - 1:
                u = self._learn(self.uni_learners, feed_u, gate.uni, layout)
                p = self._learn(self.paired_learners, feed_p, gate.paired, layout)
            if self.config.feedback == "learner":
                feed_u, feed_p = u, p
            if compute:
                rebuilt = self._decode(u, p, layout)
                sums = [a + b for a, b in zip(sums, self._losses(u, p, rebuilt, original, layout), strict=True)]
        return self._output(layout, given, u, p, gates, rebuilt, sums if compute else [])

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
        counts = [totals.get(m) if m in tokens else 0 for m in self.config.modalities]
        layout = TokenLayout.build([x.shape[1] for x in inputs], present, batch, device, counts)
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
        widths = self.config.modalities
        for name in [*tokens, *masks]:
            if name not in widths:
                built = f"this PgM was built for {', '.join(widths)}"
                raise UserError(f"Unknown modality {name!r}; {built}.{did_you_mean(name, widths)}")
        if not tokens:
            raise UserError(f"No tokens were given; expected one tensor for {', '.join(widths)}.")
        first = next(iter(tokens.values()))
        for name, x in tokens.items():
            if x.dim() != 3 or x.shape[2] != widths[name] or x.shape[0] != first.shape[0] or x.shape[1] == 0:
                expected = f"({first.shape[0]}, S, {widths[name]}) with S at least 1"
                raise UserError(f"Tokens of {name!r} have shape {tuple(x.shape)}; expected {expected}.")
            mask = masks.get(name)
            if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
                found = f"{mask.dtype} of shape {tuple(mask.shape)}"
                raise UserError(f"The mask of {name!r} is {found}; expected torch.bool of shape {tuple(x.shape[:2])}.")
        return first.shape[0], first.device

    def _gates(self, u: Tensor, p: Tensor, original: Tensor, layout: TokenLayout) -> Gates:
        """Eq. 1 for all modalities: (R, D) gates, or (T, D) for gate_scope="token"."""
        by_token = self.config.gate_scope == "token"
        whole = [x if by_token else layout.mean(x) for x in (u, p, original)]
        parts = [layout.by_modality(x) if by_token else layout.rows_by_modality(x) for x in whole]
        if self.config.share_partitioner:
            uni, paired = cast(Partitioner, self.partitioners[SHARED]).logits(*whole)
        else:
            named = zip(self.config.modalities, *parts, strict=True)
            pairs = [cast(Partitioner, self.partitioners[m]).logits(u, p, i) for m, u, p, i in named]
            uni, paired = joined([a for a, _ in pairs]), joined([b for _, b in pairs])
        return gates_of(uni, paired, self.config.gate_temperature, self.config.gate_chunk)

    def _partition(
        self, u: Tensor, p: Tensor, original: Tensor, gates: Gates, layout: TokenLayout
    ) -> tuple[Tensor, Tensor]:
        if self.config.gate_scope == "sample":
            gates = Gates(layout.broadcast(gates.uni), layout.broadcast(gates.paired))
        return partition(u, p, original, gates)

    def _learn(self, learners: nn.ModuleDict, x: Tensor, gate: Tensor, layout: TokenLayout) -> Float[Tensor, "T D"]:
        """One branch through its learner; the identity where the learner is removed."""
        if not learners:
            return x
        if self.config.share_learners:
            y: Tensor = learners[SHARED](x, gate, layout)
            return y
        gates = layout.by_modality(gate) if self.config.gate_scope == "token" else layout.rows_by_modality(gate)
        parts = zip(self.config.modalities, layout.by_modality(x), gates, strict=True)
        return joined([learners[m](y, g, layout.of_modality(i)) for i, (m, y, g) in enumerate(parts)])

    def _decode(self, u: Tensor, p: Tensor, layout: TokenLayout) -> Float[Tensor, "T D"] | None:
        """Eq. 7 for all modalities; None without a decoder."""
        if not self.decoders:
            return None
        kept = {"uni": u, "paired": p}
        branches = [kept[b] for b in self.config.branches]
        if self.config.share_decoder:
            return self._run_decoder(SHARED, branches, layout)
        parts = zip(*(layout.by_modality(b) for b in branches), strict=True)
        named = zip(self.config.modalities, parts, strict=True)
        return joined([self._run_decoder(m, list(x), layout.of_modality(i)) for i, (m, x) in enumerate(named)])

    def _run_decoder(self, name: str, branches: list[Tensor], layout: TokenLayout) -> Float[Tensor, "T D"]:
        decoder = self.decoders[name]
        if self.config.checkpointing and self.training and torch.is_grad_enabled():
            y: Tensor = checkpoint(decoder, branches, layout, use_reentrant=False)
            return y
        rebuilt: Tensor = decoder(branches, layout)
        return rebuilt

    def _losses(
        self, u: Tensor, p: Tensor, rebuilt: Tensor | None, original: Tensor, layout: TokenLayout
    ) -> list[Tensor]:
        """UFC, PFC and UPR of one iteration (eqs. 8-10); zero for what is removed."""
        assert self.classifiers is not None
        zero = original.new_zeros(())
        dropped = self.config.ablation == "drop"
        mu, mp = (layout.mean(x) if self.config.loss_level == "pooled" else x for x in (u, p))
        ufc = zero if "uni_learner" in self.config.without else self.classifiers.uni(mu, layout)
        other = None if self.config.pfc == "paired" or (dropped and "uni" not in self.config.branches) else mu
        pfc = zero if "paired_learner" in self.config.without else self.classifiers.paired(other, mp, layout)
        return [ufc, pfc, zero if rebuilt is None else reconstruction_loss(rebuilt, original, layout)]

    def _named(self, flat: Tensor, layout: TokenLayout, given: Given) -> dict[str, Tensor]:
        named = zip(self.config.modalities, layout.padded(flat), strict=True)
        return {m: x for m, x in named if m in given}

    def _named_gates(self, gates: Gates, layout: TokenLayout, given: Given) -> dict[str, Gates]:
        if self.config.gate_scope == "token":
            parts = [layout.padded(gates.uni), layout.padded(gates.paired)]
        else:
            parts = [[g.unsqueeze(1) for g in layout.rows_by_modality(x)] for x in gates]
        return {m: Gates(a, b) for m, a, b in zip(self.config.modalities, *parts, strict=True) if m in given}

    def _output(
        self,
        layout: TokenLayout,
        given: Given,
        u: Tensor,
        p: Tensor,
        gates: list[Gates],
        rebuilt: Tensor | None,
        totals: list[Tensor],
    ) -> PgMOutput:
        branches = self.config.branches
        return PgMOutput(
            uni=self._named(u, layout, given) if "uni" in branches else {},
            paired=self._named(p, layout, given) if "paired" in branches else {},
            gates=tuple(self._named_gates(g, layout, given) for g in gates),
            reconstructions={} if rebuilt is None else self._named(rebuilt, layout, given),
            losses=dict(zip(("ufc", "pfc", "upr"), totals, strict=True)) if totals else {},
            masks={m: mask for m, mask in given.items() if mask is not None},
        )

    def _unpartitioned(self, layout: TokenLayout, original: Tensor, given: Given, compute: bool) -> PgMOutput:
        """Table 3 without partitioner: u = p = I, and nothing to pre-train."""
        zeros = [original.new_zeros(()) for _ in range(3)] if compute else []
        return self._output(layout, given, original, original, [], None, zeros)
