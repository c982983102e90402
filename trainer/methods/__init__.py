"""Methods: one file each behind one interface, and the registry that knows them by name."""

from .base import Criterion, Look, Method, MethodConfig, MethodOutput, Shape, Stage, Step
from .registry import Asked, choose, found, known_methods, modalities_of, restored

__all__ = [
    "Asked",
    "Criterion",
    "Look",
    "Method",
    "MethodConfig",
    "MethodOutput",
    "Shape",
    "Stage",
    "Step",
    "choose",
    "found",
    "known_methods",
    "modalities_of",
    "restored",
]
