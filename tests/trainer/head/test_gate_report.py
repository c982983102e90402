"""gate_report: Figure 4's shares are means of the soft gate over real samples, and the hard shares add up."""

import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer.head import PgM, PgMConfig, gate_report, gate_table

SIZES = {"dim": 16, "heads": 4, "feedforward": 24}


def data_for() -> list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]]:
    tokens = [{"a": torch.randn(n, 3, 16), "b": torch.randn(n, 2, 16)} for n in (4, 2)]
    return [(tokens[0], {"b": torch.tensor([[1, 1], [0, 0], [1, 0], [0, 0]]).bool()}), (tokens[1], None)]


@pytest.mark.parametrize("scope", ["sample", "token"])
def test_shares_are_means_over_features_of_present_samples(scope: str) -> None:
    torch.manual_seed(0)
    model = PgM(PgMConfig({"a": 16, "b": 16}, **SIZES, gate_scope=scope)).train()
    data = data_for()
    report = gate_report(model, data)
    assert model.training
    model.eval()
    gates = [model(tokens, masks).gates[-1]["b"] for tokens, masks in data]
    rows = (0, 2) if scope == "sample" else None
    first = gates[0].uni[list(rows), 0] if rows else gates[0].uni[data[0][1]["b"]]
    expected = torch.cat([first, gates[1].uni.flatten(0, 1)]).mean().item() * 100
    assert report["b"].uni == pytest.approx(expected, abs=1e-4)
    assert report["b"].samples == 4
    assert report["a"].samples == 6
    for row in report.values():
        assert row.hard_uni + row.hard_paired - row.overlap + row.gap == pytest.approx(100, abs=1e-6)


def test_gates_at_initialisation_are_near_half_and_undecided() -> None:
    """Figure 4's numbers (50 to 60 % each, 5 to 7 % overlap) look like these; see docs/gates-study.md."""
    torch.manual_seed(0)
    model = PgM(PgMConfig({"a": 256}, dim=256, heads=4, feedforward=16))
    row = gate_report(model, [({"a": torch.randn(64, 4, 256)}, None)], iteration=0)["a"]
    assert row.uni == pytest.approx(50, abs=5)
    assert row.paired == pytest.approx(50, abs=5)
    assert row.undecided > 80


def test_the_table_names_every_modality_and_share() -> None:
    model = PgM(PgMConfig({"a": 16, "b": 16}, **SIZES))
    text = gate_table(gate_report(model, data_for()))
    assert text.splitlines()[0].split()[:3] == ["modality", "uni", "paired"]
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["a", "b"]


def test_models_without_gates_and_empty_data_are_refused() -> None:
    with pytest.raises(UserError, match="without its partitioner"):
        gate_report(PgM(PgMConfig({"a": 16}, **SIZES, without=("partitioner",))), data_for())
    with pytest.raises(UserError, match="no sample"):
        gate_report(PgM(PgMConfig({"a": 16}, **SIZES)), [])
