"""The PgM head, liftable into other models: partitioner, learners, decoder, losses and fusion, each a plain module."""

from .config import PgMConfig
from .decoder import CrossDecoder, FeedForwardDecoder
from .fusion import FusionConfig, FusionHead, FusionOutput
from .learner import Learner
from .model import PgM, PgMOutput
from .partitioner import Gates, Partitioner, cumsoftmax

__all__ = [
    "CrossDecoder",
    "FeedForwardDecoder",
    "FusionConfig",
    "FusionHead",
    "FusionOutput",
    "Gates",
    "Learner",
    "Partitioner",
    "PgM",
    "PgMConfig",
    "PgMOutput",
    "cumsoftmax",
]
