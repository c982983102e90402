"""Put PgM in your own model: a small late-fusion classifier, and the same model with its fusion swapped for PgM.

Run: python examples/pgm_in_your_model.py
The data is synthetic: one label bit only text knows, one only images know, and one is the XOR of a bit of each
(pgm.trainer.data.synthetic). The point is the diff between the two classes, not the numbers.
"""

import torch
import torch.nn.functional as F
from pgm.trainer.data.synthetic import SyntheticConfig, SyntheticTask
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig
from torch import Tensor, nn

WIDTHS = {"text": 32, "image": 32}


class LateFusion(nn.Module):
    """The model as it was: one encoder a modality, averaged over tokens, concatenated, one linear classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: nn.Sequential(nn.Linear(w, w), nn.GELU()) for m, w in WIDTHS.items()})
        self.classify = nn.Linear(sum(WIDTHS.values()), classes)

    def loss(self, tokens: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        encoded = {m: self.encoders[m](x) for m, x in tokens.items()}
        logits = self.classify(torch.cat([x.mean(1) for x in encoded.values()], 1))
        return logits, F.cross_entropy(logits, labels)


class LateFusionWithPgM(nn.Module):
    """The same encoders; PgM and its fusion head take the place of averaging, concatenation and classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: nn.Sequential(nn.Linear(w, w), nn.GELU()) for m, w in WIDTHS.items()})
        self.pgm = PgM(PgMConfig.small(WIDTHS))
        self.fusion = FusionHead(FusionConfig.small(tuple(WIDTHS), classes))

    def loss(self, tokens: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        encoded = {m: self.encoders[m](x) for m, x in tokens.items()}
        out = self.pgm(encoded, losses=True)
        logits = self.fusion(out.uni, out.paired, out.masks).logits
        return logits, F.cross_entropy(logits, labels) + 0.5 * out.pretraining_loss


def accuracy(model: LateFusion | LateFusionWithPgM, steps: int) -> float:
    """Train for `steps` batches of 64 and score 1,000 unseen samples."""
    config = SyntheticConfig(unique={"text": 1, "image": 1}, synergistic=1, tokens=4, dim=32, noise=0.5)
    task = SyntheticTask(config, seed=0)
    test = task.sample(1000, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(steps):
        batch = task.sample(64, seed=2 + step)
        optimizer.zero_grad()
        model.loss(batch.tokens, batch.labels)[1].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return (model.loss(test.tokens, test.labels)[0].argmax(1) == test.labels).double().mean().item()


def main(steps: int = 300) -> dict[str, float]:
    """Test accuracy of both models; chance is 1 in 8."""
    torch.manual_seed(0)
    found = {"late fusion": accuracy(LateFusion(8), steps), "with PgM": accuracy(LateFusionWithPgM(8), steps)}
    for name, value in found.items():
        print(f"{name:<12} {value:.3f}")
    return found


if __name__ == "__main__":
    main()
