"""The same in Lightning: the head in a LightningModule, the cache in its loaders.

Run: pip install lightning && pgm demo && python examples/loops/lightning_module.py features digits
"""

import sys

import lightning
import pgm
import torch
from plain_torch import Classifier, loaders
from torch import Tensor, nn


class PgMModule(lightning.LightningModule):
    """Cross-entropy and PgM's own loss; validation and test accuracy are logged."""

    def __init__(self, widths: dict[str, int], classes: int) -> None:
        super().__init__()
        self.model = Classifier(widths, classes)

    def training_step(self, batch: dict, step: int) -> Tensor:
        logits, pretraining = self.model(batch["tokens"], batch["mask"])
        return nn.functional.cross_entropy(logits, batch["label"]) + 0.5 * pretraining

    def validation_step(self, batch: dict, step: int) -> None:
        self.score("val", batch)

    def test_step(self, batch: dict, step: int) -> None:
        self.score("test", batch)

    def score(self, split: str, batch: dict) -> None:
        right = self.model(batch["tokens"], batch["mask"])[0].argmax(1) == batch["label"]
        self.log(f"{split}_accuracy", right.float().mean(), batch_size=len(right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


def main(features: str, dataset: str, epochs: int = 8) -> float:
    """Test accuracy after the last epoch."""
    lightning.seed_everything(0, verbose=False)
    split, opened = loaders(features, dataset), pgm.open_dataset(features, dataset)
    widths = {name: opened.features(name).dim for name in opened.modalities}
    module = PgMModule(widths, len(opened.card.classes))
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, split["train"], split["val"])
    return trainer.test(module, split["test"], verbose=False)[0]["test_accuracy"]


if __name__ == "__main__":
    print(f"test accuracy {main(*sys.argv[1:3]):.3f}")
