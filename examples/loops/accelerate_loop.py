"""The same under Accelerate: the loop stays yours, devices and processes are its.

Run: pip install accelerate && pgm demo && accelerate launch examples/loops/accelerate_loop.py features digits
The loader splits its samples over ranks by itself, so it is not given to `prepare`.
"""

import sys

import pgm
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from plain_torch import Classifier, accuracy, loaders
from torch import nn


def main(features: str, dataset: str, epochs: int = 8) -> float:
    """Test accuracy after the last epoch."""
    set_seed(0)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    split, opened = loaders(features, dataset), pgm.open_dataset(features, dataset)
    widths = {name: opened.features(name).dim for name in opened.modalities}
    model = Classifier(widths, len(opened.card.classes))
    model, optimiser = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3))
    for _ in range(epochs):
        model.train()
        for batch in split["train"]:
            batch = send_to_device(batch, accelerator.device)
            optimiser.zero_grad()
            logits, pretraining = model(batch["tokens"], batch["mask"])
            accelerator.backward(nn.functional.cross_entropy(logits, batch["label"]) + 0.5 * pretraining)
            optimiser.step()
    return accuracy(accelerator.unwrap_model(model).cpu(), split["test"])


if __name__ == "__main__":
    print(f"test accuracy {main(*sys.argv[1:3]):.3f}")
