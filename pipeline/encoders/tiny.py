"""The `tiny` preset: the paper's three architectures, two layers of width 128, random weights from a fixed seed.

It needs no network and no file (texts are read as bytes, as ByT5 does), and gives at most 17 tokens a modality. Random
encoders keep enough of their input for small heads to learn from; they stand in for nothing pretrained, and every
output and every store says so. Real encoders are one option away: `--encoders paper`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from torch import nn

from .audio import DistilledSpectrogramEncoder
from .base import FrozenEncoder
from .builders import Builder
from .spec import EncoderSpec
from .text import TextEncoder
from .vision import VisionEncoder

SEED = 20251027
WIDTH, LAYERS, HEADS = 128, 2, 4
LABEL = "random weights, not pretrained"


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A model initialised from the fixed seed, leaving torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build()


def tiny_text() -> tuple[nn.Module, Any]:
    """A T5 encoder over bytes; texts are cut at 16 tokens."""
    config = transformers.T5Config(
        vocab_size=384, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=2 * WIDTH, num_layers=LAYERS, num_heads=HEADS
    )
    return seeded(lambda: transformers.T5EncoderModel(config)), byte_tokenizer(limit=16)


def byte_tokenizer(limit: int) -> Any:
    """ByT5's ids (pad 0, end 1, unknown 2, then the 256 byte values) without its pure-Python tokenizer, which takes
    longer than this preset's model.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {character: byte + 3 for byte, character in bytes_to_unicode().items()}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **names)


def tiny_vision() -> tuple[nn.Module, Any]:
    """A CLIP vision tower on 32x32 pixels in patches of 8: 16 patches and CLS."""
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=32,
        patch_size=8,
    )
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return seeded(lambda: transformers.CLIPVisionModel(config)), processor


def tiny_audio() -> tuple[nn.Module, Any]:
    """An AST on 64 mel bins and 2.24 s in patches of 32: 14 patches, CLS and the distillation token."""
    config = transformers.ASTConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        patch_size=32,
        frequency_stride=32,
        time_stride=32,
        max_length=224,
        num_mel_bins=64,
    )
    extractor = transformers.ASTFeatureExtractor(max_length=224, num_mel_bins=64)
    return seeded(lambda: transformers.ASTModel(config)), extractor


MODELS: dict[str, tuple[str, Callable[[], tuple[nn.Module, Any]]]] = {
    "text": ("tiny-t5", tiny_text),
    "vision": ("tiny-clip", tiny_vision),
    "audio": ("tiny-ast", tiny_audio),
}


def build_tiny(spec: EncoderSpec) -> FrozenEncoder:
    """The preset's encoder of one modality."""
    name, make = MODELS[spec.modality]
    model, processor = make()
    if spec.modality == "text":
        return TextEncoder(spec, model, name, None, True, tokenizer=processor, prompt=spec.prompt or "")
    if spec.modality == "vision":
        return VisionEncoder(spec, model, name, None, True, processor=processor)
    return DistilledSpectrogramEncoder(spec, model, name, None, True, extractor=processor)


TINY = Builder(
    name="tiny",
    modalities=tuple(MODELS),
    summary=f"T5, CLIP and AST of two layers of width {WIDTH}: {LABEL}; no download",
    build=build_tiny,
)
