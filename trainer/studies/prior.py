"""Table 4 of the paper: prior models on frozen features, alone and with PgM in their fusion's place.

Each pair is one model whose fusion differs and nothing else (methods/prior): same sizes outside it, same epochs, no
tuning of either. So every row with PgM is held against the row without it, and not against one row of the whole table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ...cache.errors import UserError
from ..head.switches import changed
from ..methods import choose
from ..protocol import Protocol
from ..run.request import Request, resolve
from .engine.options import StudyOptions
from .engine.plan import TablePlan
from .engine.results import TableResult, results_of
from .engine.runner import Failure
from .engine.study import Row, Study, TableSpec

TITLE = "Table 4: prior models, alone and with PgM in their fusion's place"
WITHOUT_PGM = "the same model without PgM"


@dataclass(frozen=True)
class Prior:
    """A model of the table: its method, its row's name, and what its head-only form loses of it."""

    method: str
    label: str
    loses: str


PRIORS = (
    Prior("self_mm", "Self-MM", "the fine-tuned BERT; the text is the mean of frozen tokens"),
    Prior("mmim", "MMIM", "the fine-tuned BERT; the bounds push audio and vision towards a text that cannot move"),
    Prior(
        "unimse",
        "UniMSE",
        "T5's decoder and generated answers, adapters between its blocks, training on four corpora and their universal "
        "labels",
    ),
    Prior(
        "unimeec",
        "UniMEEC-style",
        "BERT's knowledge in the prompt, the conversation inside it, and, without cause labels, the cause task",
    ),
)


class PriorModels(Study):
    """Every row with PgM against the same model without it."""

    name = "prior"
    aliases = ("4",)

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """The pairs that can do the dataset's task. Raises UserError where none can."""
        shared = resolve(dataclasses.replace(request, method="concat"))
        rest = changed(Protocol.preset(request.preset), request.settings)[1]
        reasons: dict[str, str] = {}
        rows: list[Row] = []
        for prior in PRIORS:
            try:
                choice, _ = choose(prior.method, request.preset, shared.shape, rest)
                if choice.whole_groups and "group" not in shared.data.samples.column_names:
                    raise UserError("the dataset does not say which samples are a dialogue (no column 'group').")
            except UserError as error:
                reasons[prior.label] = str(error)
                continue
            rows += [
                Row(prior.label, prior.method, against=""),
                Row(f"{prior.label} + PgM", f"{prior.method}+pgm", against=prior.label),
            ]
        if not rows:
            raise UserError(f"No prior model can do {shared.data.card.name!r}: {'; '.join(reasons.values())}")
        left_out = tuple(f"{label} is left out: {reason}" for label, reason in reasons.items())
        return TableSpec(TITLE, tuple(rows), WITHOUT_PGM, paper="4", notes=left_out)

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> TableResult:
        """With what the models lose on frozen features, and how long they took."""
        result = results_of(plan, failures)
        there = {row.label for row in result.rows}
        loses = [f"{prior.label} loses {prior.loses}" for prior in PRIORS if prior.label in there]
        seconds = ", ".join(f"{row.label} {row.seconds:,.0f}" for row in result.rows if row.runs)
        notes = (f"Head-only forms. {'; '.join(loses)}.", f"Seconds, all seeds: {seconds}.")
        return dataclasses.replace(result, notes=(*notes, *result.notes))


STUDY = PriorModels()
