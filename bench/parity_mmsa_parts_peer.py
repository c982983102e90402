"""MMSA's own Self-MM and MMIM on weights, batches and features that somebody else drew.

`python bench/parity_mmsa_parts_peer.py GIVEN.npz ANSWERED.npz` runs in an environment with the package MMSA and imports
nothing of PgM; parity_mmsa_parts.py writes the one file and reads the other.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from parity_mmsa_peer import with_cached_text

MODALITIES = ("text", "audio", "vision")


def settings(name: str, given: dict[str, np.ndarray], **changes: Any) -> Any:
    """MMSA's settings for MOSI at the widths of the given batches."""
    from MMSA.config import get_config_regression

    args = get_config_regression(name, "mosi")
    args.update({"device": torch.device("cpu"), "train_mode": "regression"})
    args["feature_dims"] = [given[f"batch 0 {m}"].shape[2] for m in MODALITIES]
    args.update(changes)
    return args


def with_weights(model: torch.nn.Module, prefix: str, given: dict[str, np.ndarray]) -> torch.nn.Module:
    """The model with the given weights, every one of them."""
    weights = {name.removeprefix(prefix): torch.from_numpy(x) for name, x in given.items() if name.startswith(prefix)}
    model.load_state_dict(weights)
    return model.eval()


def batch(given: dict[str, np.ndarray], step: int) -> tuple[Any, ...]:
    """What MMSA's models take: text, and audio and vision with their lengths."""
    text, *others = (torch.from_numpy(given[f"batch {step} {m}"]) for m in MODALITIES)
    lengths = torch.ones(len(text), dtype=torch.int64)
    # BERT's three rows: the vector, and two that are not looked at.
    return (torch.cat([text, text, text], dim=1), *((x, lengths) for x in others))


def self_mm(given: dict[str, np.ndarray], steps: range) -> dict[str, np.ndarray]:
    from MMSA.models.multiTask.SELF_MM import SELF_MM

    sizes = {"a_lstm_hidden_size": 32, "v_lstm_hidden_size": 32, "audio_out": 32, "video_out": 32}
    widths = {"text_out": given["batch 0 text"].shape[2], "post_audio_dim": 32}
    model = with_weights(SELF_MM(settings("self_mm", given, **sizes, **widths)), "self_mm ", given)
    found = [model(*batch(given, step)) for step in steps]
    scores = torch.stack([torch.cat([out[task] for task in "MTAV"], dim=1) for out in found])
    return {"Self-MM, scores": scores.detach().numpy()}


def labels(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from MMSA.trains.multiTask.SELF_MM import SELF_MM

    human = torch.from_numpy(given["human"])
    dims = {"post_fusion_dim": given["fusion 1 0"].shape[1]}
    dims |= {f"post_{name}_dim": given["text 1 0"].shape[1] for name in ("text", "audio", "video")}
    trainer = SELF_MM(settings("self_mm", given, train_samples=len(human), **dims))
    trainer.init_labels(torch.arange(len(human)), human)
    found = []
    epoch = 1
    while f"samples {epoch} 0" in given:
        step = 0
        while f"samples {epoch} {step}" in given:
            samples = torch.from_numpy(given[f"samples {epoch} {step}"])
            features = [torch.from_numpy(given[f"{branch} {epoch} {step}"]) for branch in ("fusion", *MODALITIES)]
            if epoch > 1:
                trainer.update_labels(*features, epoch, samples, None)
            trainer.update_features(*features, samples)
            trainer.update_centers()
            step += 1
        found.append(torch.stack([trainer.label_map[m] for m in MODALITIES]).clone())
        epoch += 1
    return {"Self-MM, labels": torch.stack(found).numpy()}


def mmim(given: dict[str, np.ndarray], steps: range) -> dict[str, np.ndarray]:
    from MMSA.models.singleTask.MMIM import MMIM

    model = with_weights(MMIM(settings("mmim", given)), "mmim ", given)
    scores, terms = [], []
    memory: Any = {"tv": None, "ta": None, "va": None}
    for step in steps:
        targets = torch.from_numpy(given[f"targets {step}"]).unsqueeze(1)
        out = model(*batch(given, step), y=targets, mem=memory)
        scores.append(out["M"].squeeze(1))
        terms.append(torch.stack([out["nce"], out["lld"], torch.as_tensor(out["H"])]))
        memory = {pair: out["pn_dic"][pair] and {k: [x] for k, x in out["pn_dic"][pair].items()} for pair in memory}
    found = torch.stack(terms).detach().numpy()
    return {
        "MMIM, scores": torch.stack(scores).detach().numpy(),
        "MMIM, contrast": found[:, 0],
        "MMIM, likelihood": found[:, 1],
        "MMIM, entropy of batch 3": found[-1:, 2],
    }


def main() -> None:
    asked, answered = sys.argv[1:]
    given = dict(np.load(asked))
    steps = range(sum(name.startswith("targets ") for name in given))
    with_cached_text()
    np.savez(answered, **self_mm(given, steps), **labels(given), **mmim(given, steps))


if __name__ == "__main__":
    main()
