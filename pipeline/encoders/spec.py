"""What encoder is asked for: a small value that travels to the workers and is spelled by the command line's options."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ...cache.errors import UserError

TINY = "tiny"
Compute = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class EncoderSpec:
    """One modality's encoder.

    source      a hub id, a local folder, or "tiny" (small, random weights from a fixed seed)
    revision    branch, tag or commit of a hub id; the commit found is what is recorded
    layer       index into the hidden states (0 = embeddings, -1 = last); None = the model's own output
    pooling     "none" | "mean" | "cls" | "last" | "tokens:K" (adaptive average pooling to at most K tokens) |
                "sentence" (text only: the checkpoint's own rule for one vector a text)
    prompt      what stands before every text; None = what the checkpoint says, mostly nothing
    max_tokens  longest text in tokens (text only); None = the tokenizer's own limit
    frames      video frames a sample (vision only): None = 1 for image encoders, each frame giving its own tokens,
                and the model's own number for encoders of clips
    compute     dtype of the forward pass; "auto" is bfloat16 on CUDA and float32 elsewhere
    batch_size  samples a forward pass; None chooses by device. It does not enter the identity.
    """

    modality: str
    source: str = TINY
    revision: str | None = None
    layer: int | None = None
    pooling: str = "none"
    max_tokens: int | None = None
    prompt: str | None = None
    frames: int | None = None
    compute: Compute = "auto"
    device: Device = "auto"
    compile: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        parse_pooling(self.pooling)
        for name, value in (("max_tokens", self.max_tokens), ("frames", self.frames), ("batch_size", self.batch_size)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}.")


def resolve_spec(spec: EncoderSpec, device_kind: str) -> EncoderSpec:
    """`spec` with compute="auto" decided by the kind of device ("cpu" or "cuda") that will run the encoder.

    Asked of the executor before anything is named: a plan made on a machine without a GPU for workers with GPUs is
    bfloat16, and says so.
    """
    if spec.compute != "auto":
        return spec
    return replace(spec, compute="bfloat16" if device_kind == "cuda" else "float32")


def parse_pooling(pooling: str) -> tuple[str, int | None]:
    """("none" | "mean" | "cls" | "last" | "sentence" | "tokens", K). Raises UserError for anything else."""
    if pooling in ("none", "mean", "cls", "last", "sentence"):
        return pooling, None
    if match := re.fullmatch(r"tokens:([1-9]\d*)", pooling):
        return "tokens", int(match[1])
    raise UserError(
        f"--pool {pooling} is not known: use none, mean, cls, last, sentence or tokens:K (for example tokens:16)."
    )
