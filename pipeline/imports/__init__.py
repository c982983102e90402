"""Features somebody already extracted, into the same stores."""

from .arrays import ArrayModality, import_arrays

__all__ = ["ArrayModality", "import_arrays"]
