"""The interface of a frozen encoder, and what all of them share: pooling, dtypes, the identity of what they compute.

A sample's tokens depend on its own media and the encoder alone. Where a model cannot mask padding exactly (AST's fixed
canvas, wav2vec2's group norm) its subclass keeps padding out of the batch instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.errors import UserError
from ..decode import DECODE_VERSION
from ..media import Media
from .copying import Encoded, received, sent
from .identity import digest_weights, settings
from .layers import block_above, input_of
from .spec import EncoderSpec, parse_pooling, resolve_spec

Batch = dict[str, Tensor]
# Poolings that leave one token.
SINGLE = ("mean", "cls", "last", "sentence")
COMPUTE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class FrozenEncoder(ABC):
    """One frozen model and its processor.

    `decode`, `prepare` and `lengths` run ahead of the model, in threads or other processes, and touch no device;
    `encode` is the forward pass, and `start` the same without waiting for it.
    """

    # Raise it where the same media and weights would give other numbers: it is part of every store's name.
    version: ClassVar[int]
    # Which of our decoders reads its media: "text", "vision", "audio" or "series"; None where the encoder reads itself.
    medium: ClassVar[str | None] = None
    has_cls = False
    # False where padding would change more than rounding: then only items of equal length share a batch, on a GPU too.
    mixes_lengths = True
    # How many items a CPU's forward pass always has, where another number could give other bits, as convolutions do;
    # None where it shows only in batches of very few tokens.
    cpu_batch: ClassVar[int | None] = None

    def __init__(self, spec: EncoderSpec, model: nn.Module, name: str, revision: str | None, random: bool) -> None:
        self.name = name
        self.revision = revision
        self.random_weights = random
        self.device = resolve_device(spec.device)
        # What was left open is settled here: whoever is sent this spec has nothing to decide.
        self.spec = replace(resolve_spec(spec, self.device.type), revision=revision or spec.revision)
        self.compute = COMPUTE[self.spec.compute]
        self.pooling, self.pooled_tokens = parse_pooling(spec.pooling)
        if self.pooling == "cls" and not self.has_cls:
            raise UserError(f"--pool cls: {name} has no CLS token. Use --pool mean or tokens:K.")
        if self.pooling == "sentence" and self.medium != "text":
            raise UserError(f"--pool sentence is a text's: {name} encodes {spec.modality}. Use mean or tokens:K.")
        self.model = model.eval().requires_grad_(False)
        self.config: Any = getattr(model, "config", None)
        self.weights_digest = digest_weights(self.model)
        self.model.to(self.device, self.compute)
        self._forward: Callable[..., Any] = torch.compile(self.model) if spec.compile else self.model
        # Where --layer ends the pass, once a batch has shown it.
        self._above: nn.Module | None = None

    # What a subclass says of its modality.

    @abstractmethod
    def decode(self, media: Media) -> Any:
        """One item as `collate` takes it. Raises DecodeError or OSError with the reason."""

    def prepare(self, items: Sequence[Any]) -> list[Any]:
        """Decoded items as they wait for their batch: what is cheaper done for many at once than for each."""
        return list(items)

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Batch:
        """A padded batch of decoded items, prepared or not, on the CPU, with its attention mask where the model
        takes one."""

    @property
    def same_length(self) -> int | None:
        """Tokens every item has before pooling; None where they differ."""
        return None

    def lengths(self, items: Sequence[Any]) -> list[int]:
        """Tokens each decoded item will have before pooling: items of one length share a batch."""
        if self.same_length is None:
            raise NotImplementedError(f"{type(self).__name__} says neither same_length nor lengths")
        return [self.same_length] * len(items)

    @abstractmethod
    def processing(self) -> Mapping[str, Any]:
        """What of decoding (under the key `decode`) and preprocessing decides the numbers, as JSON-able values."""

    def token_lengths(self, batch: Batch) -> list[int]:
        """Valid tokens of each row of the model's output."""
        if "attention_mask" in batch:
            return [int(n) for n in batch["attention_mask"].sum(1)]
        return [-1] * len(next(iter(batch.values())))

    # What all share.

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width D of a token."""

    @cached_property
    def batch_size(self) -> int:
        return self.spec.batch_size or (128 if self.device.type == "cuda" else 32)

    def pooled_length(self, tokens: int) -> int:
        """Tokens an item keeps of so many."""
        if self.pooling in SINGLE:
            return min(tokens, 1)
        return min(tokens, self.pooled_tokens) if self.pooled_tokens else tokens

    def encode(self, batch: Batch) -> list[np.ndarray]:
        """The batch's features: one (S, D) float32 array an item, valid tokens only, pooled."""
        return self.start(batch).arrays()

    @torch.inference_mode()
    def start(self, batch: Batch) -> Encoded:
        """The same, under way: on a GPU the work is queued, and nothing has waited for it when this returns."""
        lengths = self.token_lengths(batch)
        hidden = self.hidden(self.to_device(batch))
        count = hidden.shape[1]
        if self.pooling == "none" and all(n in (-1, count) for n in lengths):
            return sent(hidden.flatten(0, 1), [count] * len(lengths))
        rows = [self.pool(row if n < 0 else row[:n]) for row, n in zip(hidden.float(), lengths, strict=True)]
        return sent(torch.cat(rows), [len(row) for row in rows])

    def without_model(self) -> FrozenEncoder:
        """What decodes, prepares and knows lengths, without what encodes: small enough for another process."""
        lengths = self.same_length  # probed while there is a model
        left = copy(self)
        left.__dict__ = {name: value for name, value in vars(self).items() if not isinstance(value, nn.Module)}
        left._forward = _no_model
        assert left.same_length == lengths
        return left

    def hidden(self, batch: Batch) -> Tensor:
        """(B, S, D) hidden states of the asked-for layer."""
        if self.spec.layer is None:
            return in_a_row(self._forward(**batch).last_hidden_state)
        if self._above is not None:
            hidden = input_of(self._above, self.model, batch)
            assert hidden is not None
            return in_a_row(hidden)
        states = self._forward(**batch, output_hidden_states=True).hidden_states
        if states is None:
            raise UserError(f"--layer {self.spec.layer}: {self.name} does not give its hidden states.")
        if not -len(states) <= self.spec.layer < len(states):
            raise UserError(f"--layer {self.spec.layer}: {self.name} has hidden states 0 to {len(states) - 1}.")
        if not self.spec.compile:
            self._above = block_above(self.model, batch, states, self.spec.layer)
        return in_a_row(states[self.spec.layer])

    def pool(self, tokens: Tensor) -> Tensor:
        """(n, D) float32, an item's valid tokens, as `--pool` asks: (S, D)."""
        if self.pooling == "mean":
            return tokens.mean(0, keepdim=True)
        if self.pooling == "cls":
            return tokens[:1]
        if self.pooling == "last":
            return tokens[-1:]
        if self.pooled_tokens and len(tokens) > self.pooled_tokens:
            return nn.functional.adaptive_avg_pool1d(tokens.T, self.pooled_tokens).T.contiguous()
        return tokens

    def to_device(self, batch: Batch) -> Batch:
        """A collated batch as the model takes it; token ids and masks keep their integer type."""
        if self.device.type == "cuda":
            batch = received(batch, self.device)
        return {
            key: tensor.to(self.device, self.compute if tensor.is_floating_point() else tensor.dtype)
            for key, tensor in batch.items()
        }

    @torch.inference_mode()
    def probed(self, item: Any) -> tuple[int, int]:
        """Tokens and their width (S, D) that the model makes of one decoded item, before pooling."""
        shape = self.hidden(self.to_device(self.collate([item]))).shape
        return int(shape[1]), int(shape[2])

    def identity_fields(self) -> dict[str, Any]:
        """Everything of this encoder that decides the numbers, as JSON-able values.

        No path, name, commit, device or batch size: a checkpoint that was moved, or whose page alone was edited, is
        the same encoder.
        """
        processing = self.processing()
        return {
            "wrapper": {"class": type(self).__name__, "version": self.version},
            "weights": self.weights_digest,
            "random_weights": self.random_weights,
            "model_class": type(self.model).__name__,
            "model_config": settings(self.config) if self.config is not None else {},
            "attention": getattr(self.config, "_attn_implementation", None),
            "layer": self.spec.layer,
            "pooling": self.spec.pooling,
            "compute_dtype": self.spec.compute,
            "compiled": self.spec.compile,
            **processing,
            "decode": {**processing["decode"], "version": DECODE_VERSION.get(self.medium or "", 0)},
        }


def _no_model(**_: Any) -> Any:
    raise AssertionError("this encoder was left without its model")


def in_a_row(hidden: Any) -> Tensor:
    """Hidden states as tokens (B, S, D); a map (B, D, H, W) row by row."""
    assert isinstance(hidden, Tensor)
    return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


def resolve_device(device: str) -> torch.device:
    """The device to run on. Raises UserError where CUDA is asked for and absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine's PyTorch sees no GPU. Use --device cpu, or auto.")
    return torch.device(device)
