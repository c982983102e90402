"""The PgM head, liftable into other models: partitioner, learners, decoder, losses and fusion, each a plain module."""

from .config import PgMConfig
from .decoder import CrossDecoder, FeedForwardDecoder
from .fusion import FusionConfig, FusionHead, FusionOutput
from .gates import GateShares, gate_report, gate_table
from .learner import Learner
from .model import PgM, PgMOutput
from .parameters import ParameterTable, parameter_table, parameter_text
from .partitioner import Gates, Partitioner, cumsoftmax

__all__ = [
    "CrossDecoder",
    "FeedForwardDecoder",
    "FusionConfig",
    "FusionHead",
    "FusionOutput",
    "GateShares",
    "Gates",
    "Learner",
    "ParameterTable",
    "Partitioner",
    "PgM",
    "PgMConfig",
    "PgMOutput",
    "cumsoftmax",
    "gate_report",
    "gate_table",
    "parameter_table",
    "parameter_text",
]
