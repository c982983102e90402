"""Methods: one file each behind one interface, and the registry that finds them by name."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Criterion as Criterion
    from .base import Look as Look
    from .base import Method as Method
    from .base import MethodConfig as MethodConfig
    from .base import MethodOutput as MethodOutput
    from .base import Shape as Shape
    from .base import Stage as Stage
    from .base import Step as Step
    from .registry import Asked as Asked
    from .registry import choose as choose
    from .registry import found as found
    from .registry import known_methods as known_methods
    from .registry import modalities_of as modalities_of
    from .registry import restored as restored

_BASE = ("Criterion", "Look", "Method", "MethodConfig", "MethodOutput", "Shape", "Stage", "Step")
_REGISTRY = ("Asked", "choose", "found", "known_methods", "modalities_of", "restored")
__all__ = [*_BASE, *_REGISTRY]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `pgm --help` mounts this floor's commands and needs no torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".base" if name in _BASE else ".registry", __name__), name)
