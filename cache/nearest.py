"""The nearest known name to one that was mistyped."""

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean …?` when a known name is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The same as a sentence of its own, with the blank before it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
