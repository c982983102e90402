"""Figure 4 of the paper: the shares of features that PgM's gates give to the uni-modal and to the paired-modal part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..head.gates import gate_report
from ..run.inference import data_of, load
from ..run.seeds import mean_and_deviation
from .engine.of_one_method import OfPgM
from .engine.plan import Cell, TablePlan
from .engine.runner import Failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = {"uni": "uni-modal", "paired": "paired-modal", "overlap": "overlap", "gap": "gap"}
BATCH = 128


@dataclass(frozen=True)
class GateShares:
    """modality -> share -> one value a seed, in per cent, on the test split."""

    dataset: str
    shares: Mapping[str, Mapping[str, list[float]]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class Gates(OfPgM):
    """Every seed's run on the test split, a bar a share."""

    name = "gates"

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> GateShares:
        """Shares of each modality's features, seed by seed."""
        found: dict[str, dict[str, list[float]]] = {}
        cells = [cell for cell in plan.cells if cell.run.finished]
        for cell in cells:
            for modality, shares in report_of(cell).items():
                for name in SHARES:
                    found.setdefault(modality, {}).setdefault(name, []).append(getattr(shares, name))
        return GateShares(plan.cells[0].resolved.data.card.name, found)

    def alt_text(self, plan: TablePlan, results: GateShares) -> str:
        """The means, and how to read them."""
        means = "; ".join(
            f"{name}: " + ", ".join(f"{share} {np.mean(several):.0f} %" for share, several in shares.items())
            for name, shares in results.shares.items()
        )
        return (
            f"Shares of features by the partitioner's gates. {means}. In our study on tasks with known information "
            "(docs/gates-study.md) these shares did not follow what a modality knows: read them as what the model "
            "uses, not as what the data hold."
        )

    def figure(self, plan: TablePlan, results: GateShares) -> Figure:
        """Per modality the uni-modal and paired-modal shares, what is in both and in neither."""
        from .engine.draw import COLOURS, HATCHES, INK, figure_of

        figure, axes = figure_of(5.5, 3.4)
        names = list(results.shares)
        for place, (share, label) in enumerate(SHARES.items()):
            several = [mean_and_deviation(results.shares[name][share]) for name in names]
            at = np.arange(len(names)) + (place - 1.5) * 0.2
            bars = axes.bar(
                at, [score["mean"] for score in several], 0.18, yerr=[score["std"] for score in several], capsize=2,
                color=COLOURS[place], edgecolor=INK, linewidth=0.6, hatch=HATCHES[place], label=label, ecolor=INK,
            )  # fmt: skip
            axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylim(0, 112)
        axes.set_ylabel("share of features, %")
        axes.set_title(f"Partitioner's gates on {results.dataset}", loc="left")
        axes.legend(ncols=4, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12))
        return figure


def report_of(cell: Cell) -> Mapping[str, Any]:
    """The gate report of a finished run on its test split; on validation where there is none."""
    data = data_of(cell.run, cell.request.features)
    loaded = load(cell.run, str(cell.resolved.device), data.task)
    rows = data.splits["test"] if len(data.splits["test"]) else data.splits["val"]
    feed = loaded.feed("auto", data.features, rows, data.targets[rows], data.samples)

    def prepared() -> Iterator[tuple[Any, Any]]:
        for batch in feed.batches(feed.evaluation_order(BATCH)):
            inputs = loaded.model.prepared(batch.inputs)
            yield inputs.tokens, inputs.masks

    return gate_report(loaded.model.method.get_submodule("pgm"), prepared())  # type: ignore[arg-type]


STUDY = Gates()
