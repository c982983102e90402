"""Balance: methods side by side, and what each makes of its modalities (measures: run/laziness.py).

Every method is held against the ensemble of uni-modally trained members, and every modality inside a joint model
against its uni-modally trained twin, the row single:NAME at the same seed; both always stand in the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..run.laziness import Measure, check, gradient_means, gradient_norms, kept, shapley_shares
from ..run.request import Request, resolve
from ..run.runs import Run
from ..run.seeds import mean_and_deviation
from .engine.options import StudyOptions, methods_named, modalities_and_task
from .engine.plan import Cell, TablePlan, reason_against
from .engine.render import Record, Sheet, mean_cell, records_of, score_record, sheet_of
from .engine.results import TableResult, results_of
from .engine.runner import Failure
from .engine.study import Row, Study, TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "ensemble"
METHODS = (
    *("concat", "late", REFERENCE, "joint", "modality_dropout", "ogm_ge", "gblend", "umt", "mmpareto", "pmr", "qmf"),
    *("reconboost", "mla", "pgm", "pgm+mla"),
)
TITLE = "Balance: methods, and what each makes of its modalities"
COLUMNS = 3  # of the figure's small panels
Score = dict[str, Any]  # mean, std and values over seeds
Curves = Mapping[str, NDArray[np.float64]]  # modality -> (seeds, epochs)


@dataclass(frozen=True)
class RowLaziness:
    """One method. By modality, each a mean, std and values over seeds: inside, the score of the joint model shown it
    alone; underuse, its twin's score minus that; shapley, its share of what the model adds to the majority guess;
    gradients, its share of the modalities' mean gradient norms. ratio: of the largest to the smallest of these norms.
    Empty or None where there is nothing to say.
    """

    label: str
    seeds: tuple[int, ...]
    inside: Mapping[str, Score]
    underuse: Mapping[str, Score]
    gap: Score | None
    shapley: Mapping[str, Score]
    gradients: Mapping[str, Score]
    ratio: Score | None


@dataclass(frozen=True)
class BalanceResult:
    """table: the scores with all modalities, as in any table. twins: modality -> its twin's score."""

    table: TableResult
    modalities: tuple[str, ...]
    twins: Mapping[str, Score]
    rows: tuple[RowLaziness, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: the table's own fields, and the laziness beside them."""
        own = {"modalities": list(self.modalities), "twins": dict(self.twins)}
        return {**self.table.as_dict(), **own, "laziness": [dataclasses.asdict(row) for row in self.rows]}


class Balance(Study):
    """Every method against the ensemble, and every modality against its twin."""

    name = "balance"
    has_folds = False
    takes = ("methods",)

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """The methods asked for (or all that can do the task), the ensemble and every modality's twin.

        Raises UserError for a task, modalities or names that cannot be balanced.
        """
        modalities, task = modalities_and_task(request)
        check(modalities, task)
        shared = resolve(dataclasses.replace(request, method=REFERENCE))
        check(modalities, task, len(shared.data.splits["test"]))
        reasons: dict[str, str | None] = {}
        if options.methods is None:
            reasons = {name: reason_against(name, request, shared.shape) for name in METHODS}
            names = [name for name, reason in reasons.items() if reason is None]
        else:
            names = methods_named(options.methods, modalities)
        twins = [f"single:{m}" for m in modalities]
        rows = [name for name in dict.fromkeys([*names, REFERENCE]) if name not in twins]
        left_out = tuple(f"{name} is left out: {reason}" for name, reason in reasons.items() if reason is not None)
        listed = tuple(Row(name, name, measurement=Measure()) for name in [*rows, *twins])
        return TableSpec(TITLE, listed, REFERENCE, notes=left_out)

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> BalanceResult:
        """The numbers of the finished and measured runs; rows whose runs are missing stand there empty."""
        table = results_of(plan, failures)
        modalities = tuple(plan.of(next(r for r in plan.spec.rows if r.method == REFERENCE))[0].resolved.data.features)
        metric = table.primary
        alone: dict[str, dict[int, float]] = {}
        for modality in modalities:
            cells = [cell for row in plan.spec.rows if row.method == f"single:{modality}" for cell in plan.of(row)]
            alone[modality] = {cell.seed: cell.run.test[metric] for cell in cells if cell.run.finished}
        nothing = table.floors.get("majority", {}).get(metric)
        joint = [row for row in plan.spec.rows if not row.method.startswith("single:")]
        rows = tuple(row_laziness(row.label, plan.of(row), modalities, metric, nothing, alone) for row in joint)
        old = [row.label for row in rows if row.seeds and not row.gradients]
        notes: list[str] = []
        if old:
            notes = [
                f"No gradient norms of {', '.join(old)}: their runs were trained before norms were recorded; "
                "pgm train --force trains them anew.",
            ]
        twins = {m: mean_and_deviation(list(values.values())) for m, values in alone.items() if values}
        return BalanceResult(dataclasses.replace(table, notes=(*table.notes, *notes)), modalities, twins, rows)

    def sheets(self, results: BalanceResult) -> list[Sheet]:
        """Scores with all modalities; each modality alone beside its twin; how score and gradients are shared."""
        short = dataclasses.replace(results.table, metrics=(results.table.primary,))
        return [sheet_of(short), alone_sheet(results), share_sheet(results)]

    def records(self, results: BalanceResult) -> list[Record]:
        """The table's own, then one a method and measure: inside:NAME, underuse:NAME, gap, shapley:NAME, ..."""
        found, by_label = records_of(results.table), {row.label: row for row in results.table.rows}
        for row in results.rows:
            own = by_label[row.label]
            shared = {"dataset": results.table.dataset, "row": row.label, "method": own.method}
            more = {"parameters": own.parameters, "runs": " ".join(own.runs)}
            found += [{**shared, "metric": m, **score_record(score, row.seeds), **more} for m, score in measures(row)]
        return found

    def alt_text(self, plan: TablePlan, results: BalanceResult) -> str:
        """In words."""
        return "Each modality inside every joint model beside its twin, and gradient norms over training."

    def figure(self, plan: TablePlan, results: BalanceResult) -> Figure:
        """Left: each modality alone inside every method, its twin a line. Right: gradient norms, a panel a method."""
        import matplotlib
        from matplotlib.figure import Figure

        from .engine.draw import STYLE

        runs = {row.label: [cell.run for cell in plan.of(row) if cell.run.finished] for row in plan.spec.rows}
        curves = {row.label: found for row in results.rows if (found := gradient_curves(runs[row.label]))}
        high = max(
            3.2, 0.19 * len(results.rows) * (len(results.modalities) + 1) + 1.2, 1.25 * -(-len(curves) // COLUMNS) + 1
        )
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(11 if curves else 5.5, high), layout="constrained")
            parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15)) if curves else [figure]
            inside(parts[0].subplots(), results)
            if curves:
                norms(parts[1], curves, results.modalities)
        figure.suptitle(f"Balance of modalities on {results.table.dataset}", fontsize=11)
        return figure


def row_laziness(
    label: str,
    cells: Sequence[Cell],
    modalities: Sequence[str],
    metric: str,
    nothing: float | None,
    alone: Mapping[str, Mapping[int, float]],
) -> RowLaziness:
    """One method from its measured runs. nothing: the majority guess's score; alone: modality, seed to twin's score."""
    measured = [(cell, found) for cell in cells if cell.run.finished and (found := kept(cell.run)) is not None]
    scores = [found.of(metric) for _, found in measured]
    seeds = tuple(cell.seed for cell, _ in measured)
    inside = {m: [score[frozenset({m})] for score in scores] for m in modalities}
    paired = {m: all(seed in alone[m] for seed in seeds) for m in modalities}
    underuse = {
        m: [alone[m][seed] - own for seed, own in zip(seeds, inside[m], strict=True)] for m in modalities if paired[m]
    }
    shares = [shapley_shares(score, nothing) if nothing is not None else None for score in scores]
    norms = [gradient_means(cell.run) for cell, _ in measured]
    gradients = [
        {m: norm[m] / sum(norm.values()) for m in modalities} if len(norm) == len(modalities) else None
        for norm in norms
    ]
    ratios = [max(share.values()) / max(min(share.values()), 1e-12) if share else None for share in gradients]
    return RowLaziness(
        label=label,
        seeds=seeds,
        inside=by_modality([{m: inside[m][i] for m in modalities} for i in range(len(seeds))]),
        underuse={m: mean_and_deviation(values) for m, values in underuse.items() if values},
        gap=over_seeds([found.gap for _, found in measured]),
        shapley=by_modality(shares),
        gradients=by_modality(gradients),
        ratio=over_seeds(ratios),
    )


def over_seeds(values: Sequence[float | None]) -> Score | None:
    """Mean, deviation and values; None where any is missing, as a mean over other seeds could not be compared."""
    there = [value for value in values if value is not None]
    return mean_and_deviation(there) if there and len(there) == len(values) else None


def by_modality(values: Sequence[Mapping[str, float] | None]) -> dict[str, Score]:
    """The same of every modality; empty where a seed has none."""
    there = [value for value in values if value is not None]
    if not there or len(there) < len(values):
        return {}
    return {m: mean_and_deviation([value[m] for value in there]) for m in there[0]}


def alone_sheet(result: BalanceResult) -> Sheet:
    """Per modality the joint model's score with it alone, and how far its twin is above."""
    names = ["method", *(name for m in result.modalities for name in (f"{m} inside", f"{m} under-use"))]
    rows = [
        [row.label, *(cell(of.get(m)) for m in result.modalities for of in (row.inside, row.underuse))]
        for row in result.rows
    ]
    twins = ["uni-modal twin", *(text for m in result.modalities for text in (cell(result.twins.get(m)), ""))]
    captions = [
        f"inside: test {result.table.primary} of the joint model shown this modality alone, the others missing "
        "(skipped, not zero-filled); times 100.",
        "under-use: the modality's uni-modally trained twin (single:NAME, same seed) minus inside; above 0, joint "
        "training has left it behind.",
        "A fusion that was never trained on incomplete samples also loses by their being new to it; modality_dropout "
        "is trained on them.",
    ]
    return Sheet("Each modality inside the joint model", names, [rows, [twins]], captions)


def share_sheet(result: BalanceResult) -> Sheet:
    """Modality gap, Shapley shares and gradient shares."""
    names = ["method", "gap", *(f"{kind} {m}" for kind in ("Shapley", "gradient") for m in result.modalities), "ratio"]
    captions = [
        "gap: distance between the centres of the modalities' vectors of length 1 (trunk outputs; PgM: fused "
        "vectors of one modality).",
        "It is blank for the ensemble, whose members, trained apart, share no space, and a mean over pairs for three "
        "and more.",
        "Shapley: share in % of what the model adds to the majority guess, negative where a modality takes from it; "
        "blank where nothing is added.",
        "gradient: share in % of the mean gradient norms of each modality's own parameters, before clipping; ratio: "
        "largest over smallest norm.",
    ]
    return Sheet(
        "What the modalities contribute", names, [[shares(row, result.modalities) for row in result.rows]], captions
    )


def shares(row: RowLaziness, modalities: Sequence[str]) -> list[str]:
    """One method's cells of the third table."""
    parts = [cell(of.get(m), 1) for of in (row.shapley, row.gradients) for m in modalities]
    return [row.label, plain(row.gap, 3), *parts, plain(row.ratio, 1)]


def cell(score: Score | None, digits: int = 2) -> str:
    """Times 100; blank for None."""
    return "" if score is None else mean_cell(score, digits)


def plain(score: Score | None, digits: int) -> str:
    """As it is; blank for None."""
    if score is None:
        return ""
    mean = f"{score['mean']:.{digits}f}"
    return f"{mean} ± {score['std']:.{digits}f}" if len(score["values"]) > 1 else mean


def measures(row: RowLaziness) -> list[tuple[str, dict[str, Any]]]:
    """Every measure of a method that has a value, by name."""
    kinds = {"inside": row.inside, "underuse": row.underuse, "shapley": row.shapley, "gradients": row.gradients}
    found = [(f"{kind}:{m}", score) for kind, scores in kinds.items() for m, score in scores.items()]
    return found + [(name, s) for name, s in (("gap", row.gap), ("gradient_ratio", row.ratio)) if s is not None]


def gradient_curves(runs: Sequence[Run]) -> Curves:
    """Gradient norms over the epochs trained on labels, cut to the shortest run; empty where a run has none."""
    found: dict[str, list[list[float]]] = {}
    for run in runs:
        for modality, curve in gradient_norms(run).items():
            found.setdefault(modality, []).append(curve)
    if any(len(curves) < len(runs) for curves in found.values()):
        return {}
    shortest = min((len(curve) for curves in found.values() for curve in curves), default=0)
    return {m: np.array([curve[:shortest] for curve in curves]) for m, curves in found.items()} if shortest else {}


def inside(axes: Any, result: BalanceResult) -> None:
    """Horizontal bars, a group a method."""
    from .engine.draw import COLOURS, HATCHES, INK, LINES

    rows = [row for row in reversed(result.rows) if row.inside]
    thick = 0.8 / len(result.modalities)
    for place, modality in enumerate(result.modalities):
        scores = [row.inside[modality] for row in rows]
        axes.barh(
            np.arange(len(rows)) + (0.5 * (len(result.modalities) - 1) - place) * thick,
            [100 * score["mean"] for score in scores], thick * 0.92, xerr=[100 * score["std"] for score in scores],
            color=COLOURS[place], edgecolor=INK, linewidth=0.5, hatch=HATCHES[place], ecolor=INK, capsize=1.5,
            label=f"{modality}, inside",
        )  # fmt: skip
        if modality in result.twins:
            twin = 100 * result.twins[modality]["mean"]
            line = LINES[1 + place % (len(LINES) - 1)][0]
            axes.axvline(twin, color=COLOURS[place], linestyle=line, linewidth=1.6, label=f"{modality}, twin alone")
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"test {result.table.primary} times 100, shown one modality")
    axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.06))


def norms(part: Any, curves: Mapping[str, Curves], modalities: Sequence[str]) -> None:
    """Small panels on common axes: mean over seeds, and their range."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

    from .engine.draw import COLOURS, LINES

    rows = -(-len(curves) // COLUMNS)
    panels = part.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (label, found) in zip(panels, curves.items(), strict=False):
        for place, modality in enumerate(m for m in modalities if m in found):
            values = found[modality]
            epochs = np.arange(1, values.shape[1] + 1)
            line, marker = LINES[place]
            axes.plot(
                epochs, values.mean(0), line, color=COLOURS[place], marker=marker, markersize=2.5, linewidth=1.1,
                markevery=max(1, len(epochs) // 6), label=modality,
            )  # fmt: skip
            axes.fill_between(epochs, values.min(0), values.max(0), color=COLOURS[place], alpha=0.15, linewidth=0)
        axes.set_title(label, loc="left", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    if all((values > 0).all() for found in curves.values() for values in found.values()):
        panels[0].set_yscale("log")
        # The panels share the axis; plain numbers, and few of them, or they run into each other.
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
        panels[0].yaxis.set_minor_formatter(NullFormatter())
    panels[0].legend(frameon=False, fontsize=7)
    part.supxlabel("epoch on labels", fontsize=9)
    part.supylabel("gradient norm of the modality's own parameters", fontsize=9)


STUDY = Balance()
