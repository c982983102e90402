"""Methods: one file each behind one interface, and the registry that knows them by name."""

from .base import Criterion, Look, Method, MethodConfig, MethodOutput, Shape, Stage, Step
from .registry import METHODS, PRIOR_METHODS, MethodChoice, choose, method_names, modalities_of, restored

__all__ = [
    "METHODS",
    "PRIOR_METHODS",
    "Criterion",
    "Look",
    "Method",
    "MethodChoice",
    "MethodConfig",
    "MethodOutput",
    "Shape",
    "Stage",
    "Step",
    "choose",
    "method_names",
    "modalities_of",
    "restored",
]
