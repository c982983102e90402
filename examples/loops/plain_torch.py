"""Train PgM's head in a loop of your own, over a cached dataset: plain PyTorch.

Run: pgm demo && python examples/loops/plain_torch.py features digits
The head and its fusion are ordinary modules, the loader is a DataLoader that can be resumed; nothing else of PgM is
here.
"""

import sys

import pgm
import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """PgM and its fusion head: tokens (B, S, D) and masks (B, S) by modality -> logits, and PgM's own loss."""

    def __init__(self, widths: dict[str, int], classes: int) -> None:
        super().__init__()
        self.pgm = pgm.PgM(pgm.PgMConfig.small(widths))
        self.fusion = pgm.FusionHead(pgm.FusionConfig.small(tuple(widths), classes))

    def forward(self, tokens: dict[str, Tensor], mask: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        out = self.pgm({name: of.float() for name, of in tokens.items()}, mask, losses=True)
        return self.fusion(out.uni, out.paired, out.masks).logits, out.pretraining_loss


def loaders(features: str, dataset: str, batch: int = 64) -> dict[str, pgm.FeatureLoader]:
    """A loader a split."""
    opened = pgm.open_dataset(features, dataset)
    splits = {split: pgm.FeatureDataset(opened, split) for split in ("train", "val", "test")}
    return {
        split: pgm.FeatureLoader(pgm.IterableFeatureDataset(of, batch_size=batch, shuffle=split == "train"))
        for split, of in splits.items()
    }


def accuracy(model: Classifier, loader: pgm.FeatureLoader) -> float:
    """Of a split."""
    model.eval()
    with torch.no_grad():
        right = [model(batch["tokens"], batch["mask"])[0].argmax(1) == batch["label"] for batch in loader]
    return torch.cat(right).double().mean().item()


def main(features: str, dataset: str, epochs: int = 8) -> float:
    """Test accuracy of the epoch that is best on validation."""
    torch.manual_seed(0)
    split = loaders(features, dataset)
    opened = pgm.open_dataset(features, dataset)
    widths = {name: opened.features(name).dim for name in opened.modalities}
    model = Classifier(widths, len(opened.card.classes))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    best, kept = -1.0, model.state_dict()
    for epoch in range(epochs):
        model.train()
        for batch in split["train"]:
            optimiser.zero_grad()
            logits, pretraining = model(batch["tokens"], batch["mask"])
            (nn.functional.cross_entropy(logits, batch["label"]) + 0.5 * pretraining).backward()
            optimiser.step()
        found = accuracy(model, split["val"])
        print(f"epoch {epoch + 1}: validation accuracy {found:.3f}")
        if found > best:
            best, kept = found, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return accuracy(model, split["test"])


if __name__ == "__main__":
    print(f"test accuracy {main(*sys.argv[1:3]):.3f}")
