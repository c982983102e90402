"""Table 4: prior models of sentiment and emotion on frozen features, alone and with PgM in their fusion's place.

Each pair is one model whose fusion differs and nothing else (methods/prior): same sizes outside it, same epochs, no
tuning of either. So every row with PgM is held against the row without it, and not against one row of the whole table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ...cache.errors import UserError
from ..methods import choose
from ..protocol import Protocol
from ..request import Request, resolve
from ..switches import changed
from .definitions import Row, TableSpec
from .results import TableResult

NAME, TITLE = "4", "Table 4: prior models, alone and with PgM in their fusion's place"
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


def prior_spec(request: Request) -> tuple[TableSpec, list[str]]:
    """The pairs that can do the dataset's task, and who is left out and why.

    Raises UserError where none can.
    """
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
    left_out = [f"{label} is left out: {reason}" for label, reason in reasons.items()]
    return TableSpec(NAME, TITLE, tuple(rows), WITHOUT_PGM), left_out


def with_losses(result: TableResult, left_out: Sequence[str]) -> TableResult:
    """The table with what its models lose on frozen features, how long they took, and who is left out."""
    there = {row.label for row in result.rows}
    loses = [f"{prior.label} loses {prior.loses}" for prior in PRIORS if prior.label in there]
    seconds = ", ".join(f"{row.label} {row.seconds:,.0f}" for row in result.rows if row.runs)
    notes = (f"Head-only forms. {'; '.join(loses)}.", f"Seconds, all seeds: {seconds}.", *left_out)
    return dataclasses.replace(result, notes=(*notes, *result.notes))
