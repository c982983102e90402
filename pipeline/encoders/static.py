"""Static word vectors in model2vec's layout: a table of one vector a word, and its tokenizer. No network is run.

A text becomes the vectors of its known words in order. One without any becomes a single vector of zeros, as its mean is
in model2vec. `--pool mean` gives model2vec's own sentence vector, before its optional normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers
import xxhash
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from ...cache.errors import NotFound, UserError
from ..decode import decode_text
from ..decode.text import ENCODINGS
from ..media import Media
from .base import Batch, FrozenEncoder
from .checkpoint import Checkpoint
from .spec import EncoderSpec
from .text import LONGEST, LONGEST_TEXT

MODEL_TYPES = ("model2vec",)


class WordVectors(nn.Module):
    """ids (B, S) -> vectors (B, S, D). `mapping` sends token ids to rows where several share one; `weights` scale
    tokens."""

    embeddings: Tensor
    mapping: Tensor | None
    weights: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = transformers.PretrainedConfig(**config)
        for name in ("embeddings", "mapping", "weights"):
            tensor = tensors.get(name)
            if tensor is None or name == "mapping":
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, nn.Parameter(tensor.float(), requires_grad=False))

    def forward(self, ids: Tensor) -> Tensor:
        rows = ids if self.mapping is None else self.mapping[ids]
        vectors = self.embeddings[rows]
        return vectors if self.weights is None else vectors * self.weights[ids][..., None].to(vectors.dtype)


class StaticEncoder(FrozenEncoder):
    """Texts to the vectors of their known words."""

    version = 1
    medium = "text"

    def __init__(self, spec: EncoderSpec, table: WordVectors, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
        self.table = table
        self.tokenizer = tokenizer
        # Rounding a table to bfloat16 would save nothing: it is read, not multiplied.
        super().__init__(replace(spec, compute="float32"), table, checkpoint.name, checkpoint.revision, False)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.digest = xxhash.xxh3_128_hexdigest(tokenizer.to_str().encode())
        self.unknown = tokenizer.token_to_id(str(getattr(tokenizer.model, "unk_token", None) or "[UNK]"))
        self.max_tokens = self.spec.max_tokens or LONGEST

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        return int(self.table.embeddings.shape[1])

    def decode(self, media: Media) -> list[int]:
        """The ids of the text's known words."""
        text = decode_text(media.read())[:LONGEST_TEXT]
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [number for number in ids if number != self.unknown][: self.max_tokens]

    def lengths(self, items: Sequence[Any]) -> list[int]:
        return [max(len(item), 1) for item in items]

    def collate(self, items: Sequence[Any]) -> Batch:
        ids = torch.zeros(len(items), max(1, *map(len, items)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(items):
            ids[row, : len(text)] = torch.tensor(text, dtype=torch.long)
            mask[row, : len(text)] = 1
        return {"ids": ids, "known": mask}

    def token_lengths(self, batch: Batch) -> list[int]:
        return [max(int(n), 1) for n in batch["known"].sum(1)]

    def hidden(self, batch: Batch) -> Tensor:
        vectors: Tensor = self._forward(batch["ids"])
        return vectors * batch["known"][..., None].to(vectors.dtype)

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": "tokenizers",
            "processor_digest": self.digest,
            "max_tokens": self.max_tokens,
            "decode": {"encodings": list(ENCODINGS)},
        }


def is_static(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds static vectors."""
    return checkpoint.json("config.json").get("model_type") in MODEL_TYPES


def check_text(spec: EncoderSpec) -> None:
    """Raises UserError where static vectors are asked to encode anything but text."""
    if spec.modality != "text":
        raise UserError(f"{spec.source} is a text encoder and was asked to encode {spec.modality}.")


def build_static(spec: EncoderSpec, checkpoint: Checkpoint) -> StaticEncoder:
    """The encoder of a folder that holds config.json, model.safetensors and tokenizer.json.

    Raises UserError where it is asked for another modality than text, and NotFound where a file is not there.
    """
    check_text(spec)
    weights, words = (checkpoint.folder / name for name in ("model.safetensors", "tokenizer.json"))
    for file in (weights, words):
        if not file.is_file():
            raise NotFound(f"{checkpoint.name} is said to hold static vectors, and has no {file.name}.")
    model = WordVectors(load_file(weights), checkpoint.json("config.json"))
    return StaticEncoder(spec, model, checkpoint, Tokenizer.from_file(str(words)))
