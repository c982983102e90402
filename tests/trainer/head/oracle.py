"""PgM transcribed from the paper's equations, with a loop for every index: iterations, modalities, blocks, heads.

Decided: plain tensor arithmetic only (no fused kernels, no packing, no modules), on the parameters of a `PgM`, so that
the same numbers must come out. Tokens are (B, S, D) with a padding mask. It is the reference of the equality tests and
the slow side of bench/head.py, so it is written to be read and not to be fast.
"""

import math
from dataclasses import dataclass

import torch
from pgm.trainer.head import PgMConfig
from torch import Tensor

PADDING = -1e30


@dataclass
class Result:
    uni: dict[str, Tensor]
    paired: dict[str, Tensor]
    gates: list[dict[str, tuple[Tensor, Tensor]]]
    reconstructions: dict[str, Tensor]
    losses: dict[str, Tensor]


class Oracle:
    """Sections 3.2 to 3.4 for one configuration and the parameters of a PgM built from it."""

    def __init__(self, config: PgMConfig, parameters: dict[str, Tensor], training: bool = False) -> None:
        self.config, self.parameters, self.training = config, parameters, training

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]

    def norm(self, name: str | None, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        y = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        if name is None:
            return y
        return y * self.parameters[f"{name}.weight"] + self.parameters[f"{name}.bias"]

    def dropout(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x, self.config.dropout, self.training)

    @staticmethod
    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))

    @staticmethod
    def softmax(x: Tensor) -> Tensor:
        e = torch.exp(x - x.max(-1, keepdim=True).values)
        return e / e.sum(-1, keepdim=True)

    @staticmethod
    def token_mean(x: Tensor, mask: Tensor) -> Tensor:
        """(B, S, C) -> (B, C) over real tokens; 0 where there is none."""
        weight = mask[..., None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)

    # Eqs. 1-3 -----------------------------------------------------------------------------------------------------

    def gates(self, name: str, u: Tensor, p: Tensor, original: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 1: (B, 1, D) each, or (B, S, D)."""
        config = self.config
        if config.gate_scope == "sample":
            u, p, original = (self.token_mean(x, mask)[:, None] for x in (u, p, original))
        key = f"partitioners.{'shared' if config.share_partitioner else name}"
        if config.gate_logits == "own":
            a, b = self.linear(f"{key}.uni_gate", u), self.linear(f"{key}.paired_gate", p)
        elif config.gate_logits == "shared":
            both = self.linear(f"{key}.both_gates", original)
            a, b = both[..., : both.shape[-1] // 2], both[..., both.shape[-1] // 2 :]
        else:
            chunks = u.shape[-1] // config.gate_chunk
            a, b = (
                torch.stack(
                    [x[..., c * config.gate_chunk : (c + 1) * config.gate_chunk].mean(-1) for c in range(chunks)], -1
                )
                for x in (u, p)
            )
        out = []
        for logits in (a, b):
            cumulative = self.softmax(logits / config.gate_temperature).cumsum(-1)
            out.append(cumulative.repeat_interleave(config.gate_chunk, -1))
        return 1 - out[0], out[1]

    def hard(self, gate: Tensor) -> Tensor:
        """g-hat of eq. 4."""
        binary = (gate >= 0.5).to(gate.dtype)
        return {"soft": gate, "detached": binary, "straight-through": gate + (binary - gate).detach()}[self.config.hard]

    # Eqs. 4-6 -----------------------------------------------------------------------------------------------------

    def attention(self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Eq. 5 head by head; keys (B, S_k) is added to every query's scores."""
        width = q.shape[-1] // self.config.heads
        heads = []
        for h in range(self.config.heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width) + keys[:, None]
            heads.append(self.softmax(scores) @ v[..., part])
        return torch.cat(heads, -1)

    def channel_attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, features: Tensor) -> Tensor:
        """Eq. 5 with features as the attended axis; features (B, D) is added to the scores of feature columns."""
        width = q.shape[-1] // self.config.heads
        real = mask[..., None].to(q.dtype)
        scale = torch.sqrt(real.sum(1, keepdim=True).clamp(min=1))
        heads = []
        for h in range(self.config.heads):
            part = slice(h * width, (h + 1) * width)
            scores = (q[..., part] * real).transpose(1, 2) @ (k[..., part] * real) / scale + features[:, None, part]
            heads.append((self.softmax(scores) @ v[..., part].transpose(1, 2)).transpose(1, 2))
        return torch.cat(heads, -1)

    def block(self, name: str, x: Tensor, gate: Tensor, mask: Tensor) -> Tensor:
        config = self.config
        keys = torch.where(mask, 0.0, PADDING).to(x.dtype)
        width = x.shape[-1]
        qk = self.hard(gate) * x if config.mask == "qk" else x
        q, k = self.linear(f"{name}.attention.qkv", qk)[..., : 2 * width].split(width, -1)
        v = self.linear(f"{name}.attention.qkv", x)[..., 2 * width :]
        if config.mask == "token":
            score = gate.detach().mean(-1).expand(mask.shape)
            live = score if config.hard == "soft" else (score >= 0.5).to(x.dtype)
            keys = keys + (1 - live) * config.mask_constant
        if config.mask == "channel":
            features = self.token_mean(gate, mask) if config.gate_scope == "token" else gate[:, 0]
            features = features.detach()
            live = features if config.hard == "soft" else (features >= 0.5).to(x.dtype)
            mixed = self.channel_attention(q, k, v, mask, (1 - live) * config.mask_constant)
        else:
            mixed = self.attention(q, k, v, keys)
        return self.after_attention(name, x, mixed)

    def after_attention(self, name: str, x: Tensor, mixed: Tensor) -> Tensor:
        out = "attention.out" if f"{name}.attention.out.weight" in self.parameters else "out"
        x = self.norm(f"{name}.norm_attention", x + self.dropout(self.linear(f"{name}.{out}", mixed)))
        hidden = self.gelu(self.linear(f"{name}.feedforward.up", x))
        return self.norm(f"{name}.norm_feedforward", x + self.dropout(self.linear(f"{name}.feedforward.down", hidden)))

    def learn(self, kind: str, name: str, x: Tensor, gate: Tensor, mask: Tensor) -> Tensor:
        config = self.config
        if f"{kind}_learner" in config.without:
            return x
        key = f"{kind}_learners.{'shared' if config.share_learners else name}"
        for layer in range(config.learner_layers):
            if config.mask == "feature":
                x = self.hard(gate) * x
            x = self.block(f"{key}.blocks.{layer}", x, gate, mask)
            if config.mask == "feature":
                x = self.hard(gate) * x
        return x

    # Eqs. 7-11 ----------------------------------------------------------------------------------------------------

    def decode(self, name: str, u: Tensor, p: Tensor, mask: Tensor) -> Tensor:
        key = f"decoders.{'shared' if self.config.share_decoder else name}"
        branches = [x for b, x in (("uni", u), ("paired", p)) if b in self.config.branches]
        if self.config.decoder == "ffn":
            hidden = self.gelu(self.linear(f"{key}.up", torch.cat(branches, -1)))
            return self.linear(f"{key}.down", self.dropout(hidden))
        memory = torch.cat(branches, 1)
        keys = torch.cat([torch.where(mask, 0.0, PADDING).to(u.dtype)] * len(branches), 1)
        k, v = self.linear(f"{key}.kv", memory).chunk(2, -1)
        mixed = self.attention(self.linear(f"{key}.q", branches[0]), k, v, keys)
        return self.after_attention(key, branches[0], mixed)

    def entropy(self, classifier: str, x: Tensor, target: int, mask: Tensor) -> Tensor:
        """Cross-entropy against one class, averaged over the samples that have the modality."""
        if self.config.loss_level == "pooled":
            per_sample = -torch.log(self.softmax(self.linear(classifier, self.token_mean(x, mask))))[:, target]
        else:
            per_token = -torch.log(self.softmax(self.linear(classifier, x)))[..., target]
            per_sample = self.token_mean(per_token[..., None], mask)[:, 0]
        return per_sample[mask.any(1)].mean()

    def losses(
        self, state: dict[str, tuple[Tensor, Tensor, Tensor, Tensor | None]], masks: dict[str, Tensor]
    ) -> list[Tensor]:
        """Eqs. 8-10 of one iteration. state: modality -> (u, p, I, I_hat)."""
        config = self.config
        here = [m for m in state if masks[m].any()]
        ufc = pfc = upr = torch.zeros((), dtype=next(iter(state.values()))[0].dtype)
        for position, m in enumerate(state):
            if m not in here:
                continue
            u, p, original, rebuilt = state[m]
            if "uni_learner" not in config.without:
                ufc = ufc + self.entropy("classifiers.modality", u, position, masks[m]) / len(here)
            if "paired_learner" not in config.without:
                paired = self.entropy("classifiers.partition", p, 1, masks[m])
                if config.pfc == "both" and "uni" in config.branches:
                    paired = (paired + self.entropy("classifiers.partition", u, 0, masks[m])) / 2
                pfc = pfc + paired / len(here)
            if rebuilt is not None:
                error = ((original.detach() - rebuilt) ** 2).sum(-1, keepdim=True) / config.dim
                upr = upr + self.token_mean(error, masks[m])[masks[m].any(1)].mean()
        return [ufc, pfc, upr]

    # Section 3 as a whole -----------------------------------------------------------------------------------------

    def forward(self, tokens: dict[str, Tensor], masks: dict[str, Tensor]) -> Result:
        config = self.config
        masks = {m: masks.get(m, torch.ones(x.shape[:2], dtype=torch.bool)) for m, x in tokens.items()}
        original = {}
        for m, x in tokens.items():
            x = x.masked_fill(~masks[m][..., None], 0)
            original[m] = self.norm(None, self.linear(f"projections.{m}", x) if x.shape[-1] != config.dim else x)
        u, p = dict(original), dict(original)
        fed_u, fed_p = dict(original), dict(original)
        rebuilt: dict[str, Tensor | None] = dict.fromkeys(tokens)
        gates, totals = [], [torch.zeros((), dtype=next(iter(original.values())).dtype)] * 3
        for _ in range(0 if "partitioner" in config.without else config.iterations):
            gates.append({})
            for m in tokens:
                g_u, g_p = self.gates(m, fed_u[m], fed_p[m], original[m], masks[m])
                gates[-1][m] = (g_u, g_p)
                g_s = g_u * g_p
                upper, downer, shared = g_u - g_s, g_p - g_s, g_s * original[m]
                fed_u[m], fed_p[m] = upper * fed_u[m] + shared, downer * fed_p[m] + shared
                u[m] = self.learn("uni", m, fed_u[m], g_u, masks[m])
                p[m] = self.learn("paired", m, fed_p[m], g_p, masks[m])
                if config.feedback == "learner":
                    fed_u[m], fed_p[m] = u[m], p[m]
                if "decoder" not in config.without:
                    rebuilt[m] = self.decode(m, u[m], p[m], masks[m])
            step = self.losses({m: (u[m], p[m], original[m], rebuilt[m]) for m in tokens}, masks)
            totals = [a + b for a, b in zip(totals, step, strict=True)]

        def shown(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {m: x.masked_fill(~masks[m][..., None], 0) for m, x in values.items()}

        return Result(
            uni=shown(u) if "uni" in config.branches else {},
            paired=shown(p) if "paired" in config.branches else {},
            gates=gates,
            reconstructions=shown({m: x for m, x in rebuilt.items() if x is not None}),
            losses=dict(zip(("ufc", "pfc", "upr"), totals, strict=True)),
        )
