"""Self-MM and MMIM beside the package MMSA's, number by number: same weights and inputs, same outputs, losses, labels.

    .venv/bin/python bench/parity_mmsa_parts.py --peer-python /tmp/mmsa/bin/python     # environment: parity_mmsa.py

Whole runs (parity_mmsa.py) draw other random numbers, and agree to within a deviation at best. Here nothing is drawn
twice: our weights go into MMSA's models by name, and both answer the same batches; our tables of labels and MMSA's take
the same features for some epochs. MMIM's entropy is compared without our jitter, which MMSA has not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from parity_mmsa import told_by_peer
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import Shape
from pgm.trainer.methods.prior import MMIMConfig, SelfMMConfig, mmilb
from pgm.trainer.methods.prior.mmim import MMIM
from pgm.trainer.methods.prior.self_mm import SelfMM
from pgm.trainer.methods.prior.ulgm import FUSION, ULGM
from torch import Tensor

WIDTHS = {"text": 40, "audio": 30, "vision": 20}
BATCH, BATCHES, EPOCHS = 48, 3, 5
# A module of ours -> MMSA's; {m} is a modality, by MMSA's name for it.
SELF_MM = {
    "encoder.by_modality.{m}.recurrent.0.": "{video}_model.rnn.",
    "encoder.by_modality.{m}.project.": "{video}_model.linear_1.",
    "heads.{m}.feature.1.": "post_{video}_layer_1.",
    "heads.{m}.score.0.": "post_{video}_layer_2.",
    "heads.{m}.score.2.": "post_{video}_layer_3.",
    "head.feature.1.": "post_fusion_layer_1.",
    "head.score.0.": "post_fusion_layer_2.",
    "head.score.2.": "post_fusion_layer_3.",
}
MMIM_ = {
    "encoder.by_modality.{m}.recurrent.": "{acoustic}_enc.rnn.",
    "encoder.by_modality.{m}.project.": "{acoustic}_enc.linear_1.",
    "bounds.{m}.mean.": "mi_t{letter}.mlp_mu.",
    "bounds.{m}.log_variance.": "mi_t{letter}.mlp_logvar.",
    "bounds.{m}.project.": "mi_t{letter}.entropy_prj.0.",
    "contrasts.{m}.predict.": "cpc_z{letter}.net.",
    "fuse.1.": "fusion_prj.linear_1.",
    "fuse.3.": "fusion_prj.linear_2.",
    "head.": "fusion_prj.linear_3.",
}
THEIR_NAMES = {
    "text": {"video": "text", "acoustic": "text", "letter": "t"},
    "audio": {"video": "audio", "acoustic": "acoustic", "letter": "a"},
    "vision": {"video": "video", "acoustic": "visual", "letter": "v"},
}


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Our weights under MMSA's names, in which the second direction of an LSTM ends in _reverse."""
    spelled = {
        own.format(m=modality): theirs.format(**known)
        for own, theirs in names.items()
        for modality, known in THEIR_NAMES.items()
    }
    found = {}
    for name, value in weights.items():
        own = max((prefix for prefix in spelled if name.startswith(prefix)), key=len)
        rest = name.removeprefix(own)
        direction, _, plain = rest.partition(".")
        ending = plain + "_reverse" * (direction == "1") if direction in ("0", "1") and "rnn." in spelled[own] else rest
        found[spelled[own] + ending] = value.numpy()
    return found


def batches() -> list[tuple[Inputs, Tensor]]:
    """One token a modality, and scores."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(BATCHES):
        tokens = {m: torch.randn(BATCH, 1, width, generator=generator) for m, width in WIDTHS.items()}
        masks = {m: torch.ones(BATCH, 1, dtype=torch.bool) for m in WIDTHS}
        found.append((Inputs(tokens, masks), torch.randn(BATCH, generator=generator)))
    return found


def self_mm(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores of the fusion and of each modality on every batch."""
    torch.manual_seed(1)
    model = SelfMMConfig().build(Shape(WIDTHS, 1)).eval()
    assert isinstance(model, SelfMM)
    given |= {f"self_mm {name}": value for name, value in renamed(model.state_dict(), SELF_MM).items()}
    scores = []
    for inputs, _ in batches():
        vectors = model.encoder(inputs)
        alone = [head(vectors[m])[1] for m, head in model.heads.items()]
        scores.append(torch.cat([model.scored(inputs, vectors).logits, *alone], dim=1))
    return {"Self-MM, scores": torch.stack(scores).detach().numpy()}


def mmim(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The score and the three terms on every batch, the entropy from the last one, which remembers the one before."""
    torch.manual_seed(2)
    model = MMIMConfig().build(Shape(WIDTHS, 1)).eval()
    assert isinstance(model, MMIM)
    given |= {f"mmim {name}": value for name, value in renamed(model.state_dict(), MMIM_).items()}
    scores, terms, jitter = [], [], mmilb.JITTER
    mmilb.JITTER = 0.0
    for inputs, targets in batches():
        vectors = model.encoder(inputs)
        output = model.scored(inputs, vectors)
        everyone = inputs.present("text")
        nce = sum(cpc(vectors[m], output.fused, everyone) for m, cpc in model.contrasts.items())
        spread = model.entropies(inputs, vectors, targets)[0]
        model.batches += 1
        scores.append(output.logits.squeeze(1))
        terms.append(torch.stack([nce, model.likelihood(inputs, vectors), spread]))
    mmilb.JITTER = jitter
    found = torch.stack(terms).detach().numpy()
    return {
        "MMIM, scores": torch.stack(scores).detach().numpy(),
        "MMIM, contrast": found[:, 0],
        "MMIM, likelihood": found[:, 1],
        "MMIM, entropy of batch 3": found[-1:, 2],
    }


def labels(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The labels that ULGM makes of the same features, after every epoch: (epochs, modalities, samples)."""
    generator, count = torch.Generator().manual_seed(3), BATCH * BATCHES
    human = (torch.randn(count, generator=generator) * 1.5).clamp(-3, 3)
    widths = {FUSION: 12, **dict.fromkeys(WIDTHS, 6)}
    ulgm = ULGM(widths, 3.0)
    ulgm.prepare(human)
    given["human"] = human.numpy()
    found = []
    for epoch in range(1, EPOCHS + 1):
        for step, samples in enumerate(torch.randperm(count, generator=generator).split(BATCH)):
            features = {branch: torch.randn(len(samples), d, generator=generator) for branch, d in widths.items()}
            given[f"samples {epoch} {step}"] = samples.numpy()
            given |= {f"{branch} {epoch} {step}": x.numpy() for branch, x in features.items()}
            everyone = {m: torch.ones(len(samples), dtype=torch.bool) for m in WIDTHS}
            ulgm.observe(samples, features, everyone, epoch)
        found.append(torch.stack([ulgm.labels(m) for m in WIDTHS]).clone())
    return {"Self-MM, labels": torch.stack(found).numpy()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter of an environment with MMSA")
    python = parser.parse_args().peer_python
    given: dict[str, np.ndarray] = {}
    for step, (inputs, targets) in enumerate(batches()):
        given |= {f"batch {step} {m}": x.numpy() for m, x in inputs.tokens.items()}
        given[f"targets {step}"] = targets.numpy()
    ours = self_mm(given) | labels(given) | mmim(given)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "given.npz", Path(folder) / "answered.npz"
        np.savez(asked, **given)
        told_by_peer(python, "parity_mmsa_parts_peer.py", str(asked), str(answered))
        theirs = dict(np.load(answered))
    print("| what | numbers | largest, absolute | greatest difference |\n|---|---:|---:|---:|")
    for name, values in ours.items():
        apart = np.abs(values - theirs[name]).max()
        print(f"| {name} | {values.size:,} | {np.abs(values).max():.3f} | {apart:.1e} |")


if __name__ == "__main__":
    main()
