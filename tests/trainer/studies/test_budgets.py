"""Every row of every table is trained equally long, whatever its stages are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pgm.trainer import Run
from pgm.trainer.methods import known_methods
from pgm.trainer.run.request import Request
from pgm.trainer.studies import studies
from pgm.trainer.studies.ablation import ablation
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import plan_table
from pgm.trainer.studies.engine.rows import TableSpec
from pgm.trainer.studies.modules import WITHOUT

from ..conftest import write_toy

BOTH = ("text", "vision")
PRIOR = ("self_mm", "mmim", "unimse", "unimeec")
FUSIONS = {name for name in known_methods(()) if not name.startswith(PRIOR)}
# Modules left out alone and together; every switch that changes what PgM's stages are made of.
VARIED = [
    "without=partitioner,uni_learner,paired_learner,decoder,uni_learner+paired_learner+decoder,partitioner+decoder",
    "iterations=1,2 x share_learners=true,false",
]


def definitions(request: Request, task: str) -> Iterator[TableSpec]:
    """Every table that trains, with all the rows it can have for this task."""
    every = studies()
    yield every["fusion"].spec(request, StudyOptions())
    yield every["modules"].spec(request, StudyOptions())
    yield ablation(VARIED)
    if task != "retrieval":
        yield ablation(["hgm=rls,off x learner=transformer,mlp"], "mla")
        yield every["balance"].spec(request, StudyOptions())
        options = StudyOptions(methods=",".join(FUSIONS), rates="0,0.2")
        yield every["missing"].spec(request, options)


@pytest.mark.parametrize("task", ["classification", "sentiment", "retrieval"])
@pytest.mark.parametrize(("preset", "epochs"), [("small", 16), ("paper", 70)])
def test_every_network_of_every_row_of_every_table_has_the_same_epochs(
    tmp_path: Path, task: str, preset: str, epochs: int
) -> None:
    # As classes, because some methods need probabilities.
    settings = {"sentiment": "classes"}
    features = write_toy(tmp_path, task=task)
    request = Request(features, tmp_path / "runs", dataset="toy", preset=preset, settings=settings)
    methods = set()
    for spec in definitions(request, task):
        for cell in plan_table(spec, request, seeds=1).cells:
            methods.add(cell.row.method)
            assert set(cell.budget.values()) == {epochs}, f"{spec.title}: {cell.row.label}"
    assert methods >= ({"pgm", "concat", "ensemble"} if task == "retrieval" else FUSIONS)


def test_an_ablation_without_a_first_stage_trains_as_long_as_the_others(
    toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    protocol = {"epochs": 3, "pretrain_epochs": 2}
    left_out = [(), *((module,) for module in WITHOUT.values()), ("uni_learner", "paired_learner", "decoder")]
    trained = {
        without: len(quick(toy, tmp_path, "pgm", settings={**protocol, "without": without}).metrics)
        for without in left_out
    }
    assert set(trained.values()) == {5}, trained
