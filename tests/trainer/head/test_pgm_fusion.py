"""Eqs. 13-14 against a plain transcription: every axis and fusion, resampling, missing modalities."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pgm.cache.errors import UserError
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig
from pgm.trainer.head.fusion import resample, resampling
from torch import Tensor

NAMES = ("text", "vision")


def head_for(**switches: Any) -> FusionHead:
    torch.manual_seed(4)
    settings = {"dim": 8, "heads": 2, "feedforward": 12, "dropout": 0.0, "classes": 3, "length": 4} | switches
    head = FusionHead(FusionConfig(NAMES, **settings))
    for stream in head.streams.values():
        if stream.null is not None:
            torch.nn.init.normal_(stream.null)
    return head


def features() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    uni, paired = (
        {m: torch.randn(4, n, 8, generator=generator) for m, n in (("text", 6), ("vision", 3))} for _ in range(2)
    )
    masks = {"text": torch.arange(6) < torch.tensor([6, 2, 5, 0])[:, None]}
    return uni, paired, masks


def plain_resample(x: Tensor, length: int) -> Tensor:
    """(L, D) -> (length, D), position by position."""
    real = x.shape[0]
    return torch.stack([x[j * real // length : math.ceil((j + 1) * real / length)].mean(0) for j in range(length)])


def plain_block(head: FusionHead, branch: str, x: Tensor) -> Tensor:
    """One sample's post-LN Transformer block, token by token and head by head. (S, D) -> (S, D)."""
    block, width = head.streams[branch].block, 4
    q, k, v = block.attention.qkv(x).chunk(3, 1)
    parts = []
    for h in range(2):
        cut = slice(h * width, (h + 1) * width)
        parts.append((q[:, cut] @ k[:, cut].T / math.sqrt(width)).softmax(1) @ v[:, cut])
    x = block.norm_attention(x + block.attention.out(torch.cat(parts, 1)))
    return block.norm_feedforward(x + block.feedforward.down(F.gelu(block.feedforward.up(x))))


def plain_stream(head: FusionHead, branch: str, sample: dict[str, Tensor]) -> Tensor:
    """Eq. 13 for one sample's real tokens. {modality: (L, D)} -> (D,)."""
    stream, config = head.streams[branch], head.config
    if config.axis == "sequence":
        joined = torch.cat([sample[m] for m in NAMES])
    else:
        length = 1 if config.axis == "pooled" else config.length
        columns = [
            plain_resample(sample[m], length) if len(sample[m]) else stream.null[i].expand(length, -1)
            for i, m in enumerate(NAMES)
        ]
        joined = torch.cat(columns, 1)
    return plain_block(head, branch, stream.ffn(joined)).mean(0)


@pytest.mark.parametrize("axis", ["feature", "sequence", "pooled"])
@pytest.mark.parametrize("fusion", ["concat", "add", "max", "attention"])
def test_every_axis_and_fusion_equals_the_equations(axis: str, fusion: str) -> None:
    head = head_for(axis=axis, fusion=fusion)
    uni, paired, masks = features()
    out = head(uni, paired, masks)
    for b in range(4):
        vectors = []
        for branch, values in (("uni", uni), ("paired", paired)):
            sample = {m: x[b, masks[m][b]] if m in masks else x[b] for m, x in values.items()}
            vectors.append(plain_stream(head, branch, sample))
        u, p = vectors
        if fusion == "attention":
            weights = torch.cat([head.weigh(u), head.weigh(p)]).softmax(0)
            joined = weights[0] * u + weights[1] * p
        else:
            joined = {"concat": torch.cat([u, p]), "add": u + p, "max": torch.maximum(u, p)}[fusion]
        fused = F.gelu(head.join(joined))
        torch.testing.assert_close(out.fused[b], fused, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out.logits[b], head.head(fused), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 9])
def test_resampling_is_adaptive_average_pooling_of_real_tokens(length: int) -> None:
    x = torch.randn(3, 5, 2)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    found = resample(x, resampling(mask, length), length)
    for b in range(2):
        torch.testing.assert_close(found[b], plain_resample(x[b, mask[b]], length))
    assert (found[2] == 0).all()
    torch.testing.assert_close(resample(x, None, length), F.adaptive_avg_pool1d(x.mT, length).mT)


def test_a_missing_modality_is_replaced_by_the_learned_vector_whatever_its_features_hold() -> None:
    head = head_for()
    uni, paired, masks = features()
    before = head(uni, paired, masks).logits
    uni["text"][3] = 100.0
    assert torch.equal(head(uni, paired, masks).logits[3], before[3])
    head(uni, paired, masks).logits[3].sum().backward()
    assert head.streams["uni"].null.grad[0].abs().max() > 0
    assert head.streams["uni"].null.grad[1].abs().max() == 0


def test_a_modality_without_features_is_named() -> None:
    head = head_for()
    uni, paired, _ = features()
    del paired["vision"]
    with pytest.raises(UserError, match="paired branch lacks vision"):
        head(uni, paired)


def test_a_modality_the_head_does_not_know_is_named() -> None:
    uni, paired, _ = features()
    uni["audio"] = paired["audio"] = uni["text"]
    with pytest.raises(UserError, match="Unknown modality 'audio'"):
        head_for()(uni, paired)


@pytest.mark.parametrize("axis", ["feature", "sequence", "pooled"])
def test_a_modality_left_out_of_the_call_is_the_learned_vector(axis: str) -> None:
    """Left out, and masked in every sample, are the same; the logits were off by as much as zeros are from it."""
    torch.manual_seed(0)
    pgm, head = PgM(PgMConfig(dict.fromkeys(NAMES, 8), 8, 2, 12, dropout=0.0)), head_for(axis=axis)
    tokens = {m: torch.randn(4, 3, 8) for m in NAMES}
    masks = {"vision": torch.zeros(4, 3, dtype=torch.bool)}
    masked, left_out = pgm(tokens, masks), pgm({"text": tokens["text"]})
    expected = head(masked.uni, masked.paired, masks).logits
    torch.testing.assert_close(head(left_out.uni, left_out.paired).logits, expected)
    torch.testing.assert_close(head(left_out.uni, left_out.paired, left_out.masks).logits, expected)
    torch.testing.assert_close(head(masked.uni, masked.paired, masked.masks).logits, expected)
    assert (head(masked.uni, masked.paired).logits - expected).abs().max() > 0.01, "zeros are something else"


@pytest.mark.parametrize("changes", [{"fusion": "concatenate"}, {"axis": "features"}, {"branches": ("unimodal",)}])
def test_unknown_choices_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is one of"):
        FusionConfig(NAMES, **changes)
