"""Tokens a sample, by modality: what a dataset's heads are shown. No run is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.feed import present_lengths
from ..run.request import Request, resolve
from .engine.options import StudyOptions
from .engine.plan import TablePlan
from .engine.runner import Failure
from .engine.study import Study, TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TokenCounts:
    """modality -> tokens a sample (N,), 0 where it is missing."""

    dataset: str
    lengths: Mapping[str, NDArray[np.int64]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"dataset": self.dataset, "tokens": {name: found.tolist() for name, found in self.lengths.items()}}


class Tokens(Study):
    """A histogram a modality."""

    name = "tokens"
    has_table = False

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """No rows: the features say it."""
        return TableSpec("Tokens a sample", (), "")

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> TokenCounts:
        """As the features say."""
        data = resolve(plan.request).data
        lengths = {name: np.asarray(present_lengths(store), np.int64) for name, store in data.features.items()}
        return TokenCounts(data.card.name, lengths)

    def alt_text(self, plan: TablePlan, results: TokenCounts) -> str:
        """In words."""
        return "Tokens a sample, by modality."

    def figure(self, plan: TablePlan, results: TokenCounts) -> Figure:
        """One panel a modality."""
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        from .engine.draw import COLOURS, INK, STYLE

        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(5.5, 1.5 * len(results.lengths) + 0.6), layout="constrained")
            panels = figure.subplots(len(results.lengths), 1, squeeze=False)[:, 0]
        for place, (axes, (name, lengths)) in enumerate(zip(panels, results.lengths.items(), strict=True)):
            present = lengths[lengths > 0]
            longest = int(present.max(initial=1))
            bins = np.arange(0.5, longest + 1.5) if longest <= 64 else np.linspace(0.5, longest + 0.5, 49)
            axes.hist(present, bins=bins, color=COLOURS[place], edgecolor=INK, linewidth=0.4)
            missing = int((lengths == 0).sum())
            title = f"{name}: {len(present):,} samples, mean {present.mean() if len(present) else 0:.1f} tokens"
            axes.set_title(title + (f", {missing:,} missing" if missing else ""), loc="left", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylabel("samples")
        panels[-1].set_xlabel("tokens a sample")
        figure.suptitle(f"Token counts of {results.dataset}", fontsize=11)
        return figure


STUDY = Tokens()
