"""`--pool sentence`: one vector a text, by the rule a checkpoint of sentence-transformers publishes with its weights.

E5, GTE and BGE are such checkpoints: E5 averages, BGE takes CLS, embedding models made of decoders take the last token.
The rule stands in `modules.json` and the folders it names (pooling, dense layers, normalisation) and is read from there
without the library; the tests hold it against the library's own vectors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from safetensors.torch import load_file
from torch import Tensor, nn

from ...cache.errors import UserError
from .checkpoint import Checkpoint

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken")
ACTIVATIONS = {"Tanh": nn.Tanh, "Identity": nn.Identity, "ReLU": nn.ReLU, "GELU": nn.GELU}
# E5 was trained with "query: " or "passage: " before every text, and its card asks for the first where vectors are
# features; no file of the checkpoint says so.
E5 = re.compile(r"(^|/)(multilingual-)?e5-(small|base|large)(-v\d)?(-unsupervised)?$")


@dataclass(frozen=True)
class SentenceRule:
    """How tokens (n, D) become one vector: a pooling, then layers in their order."""

    mode: str
    layers: tuple[nn.Module, ...]
    dim: int | None

    def __call__(self, tokens: Tensor) -> Tensor:
        """(n, D) float32 -> (1, D')."""
        match self.mode:
            case "cls":
                vector = tokens[:1]
            case "lasttoken":
                vector = tokens[-1:]
            case "max":
                vector = tokens.amax(0, keepdim=True)
            case "mean":
                vector = tokens.mean(0, keepdim=True)
            case _:
                vector = tokens.sum(0, keepdim=True) / len(tokens) ** 0.5
        for layer in self.layers:
            vector = layer.to(vector.device)(vector)
        return vector

    def described(self) -> dict[str, Any]:
        """The rule as it stands in an encoder's identity."""
        hasher = xxhash.xxh3_128()
        for layer in self.layers:
            hasher.update(repr(layer).encode())
            for tensor in layer.state_dict().values():
                hasher.update(tensor.cpu().contiguous().numpy())
        return {"mode": self.mode, "layers": hasher.hexdigest()}


class _UnitLength(nn.Module):
    def forward(self, vector: Tensor) -> Tensor:
        return nn.functional.normalize(vector, dim=-1)


def sentence_rule(checkpoint: Checkpoint) -> SentenceRule:
    """The checkpoint's own rule. Raises UserError where it publishes none, or one that is not known here."""
    modules = [(module["path"], module["type"].rsplit(".", 1)[-1]) for module in checkpoint.json("modules.json")]
    if [kind for _, kind in modules[:2]] != ["Transformer", "Pooling"]:
        raise UserError(
            f"--pool sentence: {checkpoint.name} does not say how a text becomes one vector "
            "(it has no modules.json of sentence-transformers that begins with a transformer and a pooling). "
            "Use --pool mean, cls or last."
        )
    layers: list[nn.Module] = []
    dim: int | None = None
    for path, kind in modules[2:]:
        if kind == "Normalize":
            layers.append(_UnitLength())
        elif kind == "Dense":
            layers.append(_dense(checkpoint, path))
            dim = int(checkpoint.json(f"{path}/config.json")["out_features"])
        else:
            raise UserError(f"--pool sentence: {checkpoint.name} ends in a {kind!r} module, which is not known here.")
    return SentenceRule(_mode(checkpoint, modules[1][0]), tuple(layers), dim)


def _mode(checkpoint: Checkpoint, path: str) -> str:
    config = checkpoint.json(f"{path}/config.json")
    older: Sequence[str] = [key.removeprefix("pooling_mode_") for key, on in config.items() if key[13:] and on is True]
    older = [{"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}.get(mode, mode) for mode in older]
    mode = config.get("pooling_mode") or next((mode for mode in older if mode in MODES), None)
    if mode not in MODES or len([m for m in older if m in MODES]) > 1 or config.get("include_prompt", True) is False:
        raise UserError(f"--pool sentence: {checkpoint.name} pools in a way that is not known here: {config}.")
    return str(mode)


def _dense(checkpoint: Checkpoint, path: str) -> nn.Module:
    config = checkpoint.json(f"{path}/config.json")
    activation = ACTIVATIONS.get(str(config["activation_function"]).rsplit(".", 1)[-1])
    if activation is None:
        raise UserError(f"--pool sentence: {checkpoint.name} uses {config['activation_function']}, not known here.")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
    file = checkpoint.folder / path / "model.safetensors"
    weights = load_file(file) if file.is_file() else torch.load(file.with_name("pytorch_model.bin"), weights_only=True)
    linear.load_state_dict({name.removeprefix("linear."): tensor.float() for name, tensor in weights.items()})
    return nn.Sequential(linear, activation()).eval().requires_grad_(False)


def default_prompt(checkpoint: Checkpoint) -> str:
    """What a checkpoint wants before every text; "" for most."""
    said = checkpoint.json("config_sentence_transformers.json")
    if chosen := said.get("default_prompt_name"):
        return str(said.get("prompts", {}).get(chosen, ""))
    return "query: " if E5.search(checkpoint.name) else ""


def longest(checkpoint: Checkpoint) -> int | None:
    """The checkpoint's own limit of tokens, where sentence-transformers recorded one."""
    limit = checkpoint.json("sentence_bert_config.json").get("max_seq_length")
    return int(limit) if limit else None
