"""The nearest known name to one that was mistyped."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " Did you mean …?" when a known name is close, else nothing: a sentence to put behind another's full stop."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
