"""Why one item could not be decoded: recorded beside the item, never fatal to a run.

Libraries raise whatever they like on broken bytes (Pillow NotImplementedError, PyAV AttributeError, libsndfile
UnicodeDecodeError): an item is caught by being the item, not by the type of what it raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...cache.errors import RunFailed

LONGEST = 300


class DecodeError(RunFailed):
    """One item's bytes are not what its modality needs; the message is recorded as the reason."""


def readable(error: Exception) -> DecodeError:
    """What an item raised, as the one line that is recorded beside it: no path, and for a library's errors their
    kind."""
    if isinstance(error, DecodeError):
        return error
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return DecodeError("file not found" if isinstance(error, FileNotFoundError) else error.strerror or str(error))
    said = " ".join(str(error).split())
    return DecodeError(f"{type(error).__name__}{': ' if said else ''}{said}"[:LONGEST])


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Within it, whatever a library raises becomes a DecodeError that begins with `what`."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"{what}: {readable(error)}") from error
