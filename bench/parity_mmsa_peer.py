"""MMSA's own Self-MM or MMIM on vectors that somebody else cached; one JSON line a seed.

`python bench/parity_mmsa_peer.py FILE.npz MODEL CONFIG SEED ...` runs in an environment with the package MMSA and
imports nothing of PgM. FILE holds text, audio and vision (N, D) of train, valid and test and their scores; CONFIG is
JSON that changes MMSA's settings for MOSI. Model, losses, label generation, schedule, early stopping and metrics are
MMSA's; its text encoder is replaced by one that hands on the cached vector, and everything has one time step.
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

MODALITIES = ("text", "audio", "vision")


class CachedText(torch.nn.Module):
    """Stands for BERT: the "token ids" are the cached vector, which is its first token's state."""

    def __init__(self, **ignored: Any) -> None:
        super().__init__()

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return text[:, :1, :]


def with_cached_text() -> None:
    """Put `CachedText` in the place of both models' text encoder."""
    import MMSA.models  # noqa: F401

    for name in ("MMSA.models.multiTask.SELF_MM", "MMSA.models.singleTask.MMIM"):
        sys.modules[name].BertTextEncoder = CachedText


def as_pickle(file: Path, folder: Path) -> Path:
    """MMSA's own layout: BERT's three rows (here the vector and two of zeros), one step of audio and vision."""
    data = np.load(file)
    parts = {}
    for split in ("train", "valid", "test"):
        text = data[f"{split}_text"]
        count = len(text)
        parts[split] = {
            "raw_text": np.array([""] * count),
            "id": np.arange(count),
            "text_bert": np.stack([text, np.zeros_like(text), np.zeros_like(text)], axis=1),
            "audio": data[f"{split}_audio"][:, None],
            "vision": data[f"{split}_vision"][:, None],
            "audio_lengths": [1] * count,
            "vision_lengths": [1] * count,
            "regression_labels": data[f"{split}_labels"],
        }
    path = folder / "features.pkl"
    path.write_bytes(pickle.dumps(parts))
    return path


def main() -> None:
    file, model_name, changes, *seeds = sys.argv[1:]
    # torch has dropped a switch of its scheduler that MMSA still passes.
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    torch.optim.lr_scheduler.ReduceLROnPlateau = lambda *a, verbose=False, **k: plateau(*a, **k)  # type: ignore[misc]
    from MMSA.config import get_config_regression
    from MMSA.data_loader import MMDataLoader
    from MMSA.models import AMIO
    from MMSA.trains import ATIO
    from MMSA.utils import setup_seed

    with_cached_text()
    with tempfile.TemporaryDirectory() as folder:
        path = as_pickle(Path(file), Path(folder))
        for seed in map(int, seeds):
            begun = time.perf_counter()
            args = get_config_regression(model_name, "mosi")
            args.update({"device": torch.device("cpu"), "train_mode": "regression", "custom_feature": str(path)})
            args.update({"feature_T": "", "feature_A": "", "feature_V": "", "model_save_path": f"{folder}/model.pth"})
            args.update({"cur_seed": seed, **json.loads(changes)})
            setup_seed(seed)
            loaders = MMDataLoader(args, 0)
            args["train_samples"] = len(loaders["train"].dataset)
            args["feature_dims"][0] = loaders["train"].dataset.text.shape[2]
            model = AMIO(args)
            trainer = ATIO().getTrain(args)
            trainer.do_train(model, loaders)
            model.load_state_dict(torch.load(args["model_save_path"]))
            found = {name: float(value) for name, value in trainer.do_test(model, loaders["test"], mode="TEST").items()}
            parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
            line = {"metrics": found, "parameters": parameters, "seconds": time.perf_counter() - begun}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
