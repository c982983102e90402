"""The shipped example and the README's ten lines run as they are written."""

import importlib.util
from pathlib import Path

import torch
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "pgm_in_your_model.py"


def test_the_example_trains_both_models_above_chance() -> None:
    spec = importlib.util.spec_from_file_location("pgm_in_your_model", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = example.main(steps=40)
    assert set(found) == {"late fusion", "with PgM"}
    assert min(found.values()) > 0.125 + 0.05


def test_the_ten_lines_of_the_readme() -> None:
    text, image = torch.randn(8, 15, 768), torch.randn(8, 50, 512)
    text_mask = torch.arange(15) < torch.randint(1, 16, (8, 1))
    label = torch.randint(0, 5, (8,))
    pgm = PgM(PgMConfig.small({"text": 768, "image": 512}))
    fusion = FusionHead(FusionConfig.small(("text", "image"), classes=5))
    out = pgm({"text": text, "image": image}, {"text": text_mask})
    logits = fusion(out.uni, out.paired, out.masks).logits
    loss = torch.nn.functional.cross_entropy(logits, label) + 0.5 * out.pretraining_loss
    loss.backward()
    assert all(p.grad is not None for p in pgm.parameters())
