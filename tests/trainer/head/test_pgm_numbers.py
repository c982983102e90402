"""Numbers that must not move: Table 5's counts, and the losses of a seeded model that guard later speed work."""

import json

import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig, parameter_table
from pgm.trainer.head.parameters import size
from pgm.trainer.run.params import params, widths_of
from typer import Typer
from typer.testing import CliRunner

TWO = {"text": 768, "vision": 768}


def on_meta(**switches: object) -> PgM:
    with torch.device("meta"):
        return PgM(PgMConfig.paper(TWO, **switches))


def test_table_5_comes_out_exactly() -> None:
    model = on_meta(share_partitioner=True)
    parts = (model.partitioners, model.uni_learners, model.paired_learners, model.decoders)
    assert [size(part) for part in parts] == [1_181_184, 7_087_872, 7_087_872, 7_087_872]
    assert size(on_meta(decoder="ffn").decoders) == 7_081_728
    table = parameter_table(model.config, FusionConfig.paper(tuple(TWO), 2))
    assert table.counted[-1].ours == 22_444_800
    assert abs(table.difference) < 0.5
    assert size(model) - size(model.classifiers) == 22_444_800


def test_what_table_5_left_out_is_counted() -> None:
    widths = {"text": 768, "vision": 512, "audio": 768}
    config, fusion = PgMConfig.paper(widths), FusionConfig.paper(tuple(widths), 7)
    table = parameter_table(config, fusion)
    rows = {line.module: line.ours for line in table.uncounted}
    assert rows["further modal partitioners"] == 2 * 1_181_184
    assert rows["input projections"] == 512 * 768 + 768
    with torch.device("meta"):
        assert table.trained == size(PgM(config)) + size(FusionHead(fusion))


def test_params_command_prints_the_table_and_one_json_object() -> None:
    app = Typer()
    app.command()(params)
    text = CliRunner().invoke(app, ["--share-partitioner"])
    assert text.exit_code == 0, text.output
    assert "22,444,800" in text.output
    assert "22.36M" in text.output
    data = json.loads(CliRunner().invoke(app, ["--json", "--modality", "text", "--modality", "audio=128"]).output)
    assert data["counted"][-1]["ours"] == 22_444_800
    assert data["difference_percent"] == pytest.approx(0.379)


@pytest.mark.parametrize("given", [["text="], ["=768"], ["text=wide"], ["text", "text=512"]])
def test_malformed_modalities_are_refused(given: list[str]) -> None:
    with pytest.raises(UserError, match="--modality"):
        widths_of(given)


# UFC, PFC and UPR before each of three SGD steps.
GOLDEN = {
    "feature": ((2.26699, 2.69467, 5.16223), (1.47856, 1.71589, 4.75472), (1.10446, 1.37682, 4.47698)),
    "channel": ((2.25861, 2.4929, 3.32905), (1.50836, 1.54885, 2.90331), (1.16288, 1.15089, 2.61646)),
    "qk": ((2.17614, 2.57106, 3.58256), (1.38748, 1.46115, 3.05917), (1.02614, 1.08392, 2.71859)),
}


@pytest.mark.parametrize("mask", ["feature", "channel", "qk"])
def test_losses_of_a_seeded_model_stay_where_they_are(mask: str) -> None:
    """Recorded with torch 2.13 on a CPU; a change here is a change of the method, not of its speed."""
    torch.manual_seed(0)
    widths = {"text": 12, "vision": 64}
    model = PgM(PgMConfig.small(widths, mask=mask, dropout=0.0))
    tokens = {m: torch.randn(6, n, widths[m]) for m, n in (("text", 5), ("vision", 4))}
    masks = {"text": torch.arange(5) < torch.tensor([5, 3, 1, 0, 2, 4])[:, None]}
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    found = []
    for _ in range(3):
        optimizer.zero_grad()
        losses = model(tokens, masks).losses
        sum(losses.values()).backward()
        optimizer.step()
        found.append(tuple(losses[k].item() for k in ("ufc", "pfc", "upr")))
    assert found == [pytest.approx(row, abs=2e-4) for row in GOLDEN[mask]], found
