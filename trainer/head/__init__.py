"""The PgM head, liftable into other models: partitioner, learners, decoder, losses and fusion, each a plain module."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import PgMConfig as PgMConfig
    from .decoder import CrossDecoder as CrossDecoder
    from .decoder import FeedForwardDecoder as FeedForwardDecoder
    from .fusion import FusionConfig as FusionConfig
    from .fusion import FusionHead as FusionHead
    from .fusion import FusionOutput as FusionOutput
    from .gates import GateShares as GateShares
    from .gates import gate_report as gate_report
    from .gates import gate_table as gate_table
    from .learner import Learner as Learner
    from .model import PgM as PgM
    from .model import PgMOutput as PgMOutput
    from .parameters import ParameterTable as ParameterTable
    from .parameters import parameter_table as parameter_table
    from .parameters import parameter_text as parameter_text
    from .partitioner import Gates as Gates
    from .partitioner import Partitioner as Partitioner
    from .partitioner import cumsoftmax as cumsoftmax

_EXPORTS = {
    "CrossDecoder": ".decoder",
    "FeedForwardDecoder": ".decoder",
    "FusionConfig": ".fusion",
    "FusionHead": ".fusion",
    "FusionOutput": ".fusion",
    "GateShares": ".gates",
    "Gates": ".partitioner",
    "Learner": ".learner",
    "ParameterTable": ".parameters",
    "Partitioner": ".partitioner",
    "PgM": ".model",
    "PgMConfig": ".config",
    "PgMOutput": ".model",
    "cumsoftmax": ".partitioner",
    "gate_report": ".gates",
    "gate_table": ".gates",
    "parameter_table": ".parameters",
    "parameter_text": ".parameters",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    # Loaded on first use: `pgm --help` mounts this room's commands and needs no torch.
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name], __name__), name)
