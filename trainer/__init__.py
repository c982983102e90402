"""The trainer: lightweight heads from cached features, under one honest protocol.

Names are looked up on first use, because importing torch takes seconds and `pgm --help` needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.missing import Missing
    from .data.sequence import Context
    from .data.synthetic import SyntheticConfig, SyntheticData, SyntheticTask, bayes_accuracy
    from .protocol import Protocol
    from .run.estimator import PgMClassifier, PgMRegressor
    from .run.inference import evaluate_on as evaluate
    from .run.inference import predicted as predict
    from .run.runs import Run, list_runs, open_run
    from .run.training import train
    from .studies.engine.make import Table, ablate, table
    from .studies.engine.study import Row, Study, TableSpec

HOMES = {
    "Context": "data.sequence",
    "Missing": "data.missing",
    "PgMClassifier": "run.estimator",
    "PgMRegressor": "run.estimator",
    "Protocol": "protocol",
    "Row": "studies.engine.study",
    "Run": "run.runs",
    "Study": "studies.engine.study",
    "SyntheticConfig": "data.synthetic",
    "SyntheticData": "data.synthetic",
    "SyntheticTask": "data.synthetic",
    "Table": "studies.engine.make",
    "TableSpec": "studies.engine.study",
    "ablate": "studies.engine.make",
    "bayes_accuracy": "data.synthetic",
    "evaluate": "run.inference:evaluate_on",
    "list_runs": "run.runs",
    "open_run": "run.runs",
    "predict": "run.inference:predicted",
    "table": "studies.engine.make",
    "train": "run.training",
}
__all__ = [
    "Context",
    "Missing",
    "PgMClassifier",
    "PgMRegressor",
    "Protocol",
    "Row",
    "Run",
    "Study",
    "SyntheticConfig",
    "SyntheticData",
    "SyntheticTask",
    "Table",
    "TableSpec",
    "ablate",
    "bayes_accuracy",
    "evaluate",
    "list_runs",
    "open_run",
    "predict",
    "table",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = HOMES[name].partition(":")
    return getattr(import_module(f".{module}", __name__), attribute or name)
