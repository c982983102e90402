"""PMF, graph attention and the encoders against plain transcriptions in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pgm.trainer.methods.prior.encoders import LastState, MeanEncoder, leading
from pgm.trainer.methods.prior.graph_attention import GraphAttention, within
from pgm.trainer.methods.prior.pmf import PMFAdapter


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pmf_is_the_published_adapter_token_by_token() -> None:
    adapter, tokens, beside = PMFAdapter(6, 4, bottleneck=3).double(), drawn(2, 5, 6), drawn(2, 4, seed=1)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    weights = {name: value.numpy() for name, value in adapter.state_dict().items()}
    found = adapter(tokens, beside).detach().numpy()
    for b in range(2):
        for s in range(5):
            x = np.concatenate([tokens[b, s].numpy(), beside[b].numpy()])
            down = 1 / (1 + np.exp(-(weights["down.weight"] @ x + weights["down.bias"])))
            merged = weights["up.weight"] @ down + weights["up.bias"] + x
            assert found[b, s] == pytest.approx(weights["out.weight"] @ merged + weights["out.bias"], rel=1e-10)


def test_pmf_starts_with_small_weights_and_no_bias() -> None:
    adapter = PMFAdapter(64, 32)
    assert 5e-4 < adapter.down.weight.std().item() < 2e-3
    assert 5e-4 < adapter.up.weight.std().item() < 2e-3
    assert not adapter.up.bias.any()


def test_an_utterance_sees_its_own_dialogue_within_the_window_and_itself() -> None:
    dialogues, turns = torch.tensor([0, 0, 0, 1, 1, 0]), torch.tensor([0, 1, 2, 0, 1, 7])
    seen = within(dialogues, turns, 1)
    expected = {(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (3, 4), (4, 3), (4, 4), (5, 5)}
    assert {(i, j) for i in range(6) for j in range(6) if seen[i, j]} == expected


def test_graph_attention_is_the_published_layer_pair_by_pair() -> None:
    layer, x = GraphAttention(5, 6, heads=2, dropout=0.0).double(), drawn(4, 5)
    visible = within(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 0]), 1)
    found = layer(x, visible).detach().numpy()
    weight = layer.project.weight.detach().numpy()
    for head in range(2):
        values = [(weight @ x[i].numpy()).reshape(2, 3)[head] for i in range(4)]
        a = np.concatenate([layer.asking.detach().numpy()[head], layer.asked.detach().numpy()[head]])
        for i in range(4):
            scores = {}
            for j in range(4):
                if visible[i, j]:
                    e = float(a @ np.concatenate([values[i], values[j]]))
                    scores[j] = math.exp(e if e > 0 else 0.2 * e)
            mixed = sum(score * values[j] for j, score in scores.items()) / sum(scores.values())
            expected = np.where(mixed > 0, mixed, np.exp(np.minimum(mixed, 0)) - 1)
            assert found[i, 3 * head : 3 * head + 3] == pytest.approx(expected, rel=1e-10)


def test_graph_attention_gives_nothing_to_utterances_beyond_the_window() -> None:
    layer, x = GraphAttention(5, 6, heads=2, dropout=0.0).double(), drawn(9, 5)
    visible = within(torch.zeros(9, dtype=torch.int64), torch.arange(9), 2)
    weights = layer.weights(layer.project(x).view(9, 2, 3), visible)
    assert not weights[:, ~visible].any()
    assert torch.allclose(weights.sum(dim=2), torch.ones(2, 9, dtype=torch.float64))
    other = x.clone()
    other[5:] += 10.0
    assert torch.equal(layer(x, visible)[:3], layer(other, visible)[:3])
    assert not torch.equal(layer(x, visible)[3], layer(other, visible)[3])


def test_the_last_state_is_that_of_the_last_real_token_in_both_directions() -> None:
    encoder, tokens = LastState(3, 4, 2, bidirectional=True).double(), drawn(3, 6, 3)
    lengths = [6, 2, 0]
    mask = torch.tensor([[s < n for s in range(6)] for n in lengths])
    found = encoder(tokens, mask)
    for row, length in enumerate(lengths[:2]):
        own = tokens[row : row + 1, :length]
        ends = [lstm(x)[1][0][0] for lstm, x in zip(encoder.recurrent, (own, own.flip(1)), strict=True)]
        assert torch.allclose(found[row], encoder.project(torch.cat(ends, dim=1))[0])
    assert not found[2].any()


def test_the_last_state_reads_past_holes_and_never_into_padding() -> None:
    encoder, tokens = LastState(3, 4, 2).double(), drawn(1, 4, 3)
    holes = torch.tensor([[True, False, True, False]])
    other = tokens.clone()
    other[0, [1, 3]] = 99.0
    together = encoder(tokens[:, [0, 2]], torch.ones(1, 2, dtype=torch.bool))
    assert torch.allclose(encoder(tokens, holes), together)
    assert torch.equal(encoder(tokens, holes), encoder(other, holes))


def test_the_mean_is_over_real_tokens_and_zero_without_any() -> None:
    tokens, mask = drawn(2, 3, 4), torch.tensor([[True, True, False], [False] * 3])
    found = MeanEncoder()(tokens, mask)
    assert torch.allclose(found[0], tokens[0, :2].mean(dim=0))
    assert not found[1].any()


def test_text_leads_where_there_is_one() -> None:
    assert leading({"audio": 3, "text": 4}) == "text"
    assert leading({"audio": 3, "vision": 4}) == "audio"
