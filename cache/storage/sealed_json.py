"""JSON that carries the checksum of its other fields, spelled one way, so that a single changed byte is found."""

import json
from typing import Any

import xxhash

from ..errors import CorruptStore
from .base import Storage

SEAL = "checksum"


def spelled(value: Any) -> bytes:
    """JSON for people and programs: sorted, indented, one final newline."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def sealed(value: dict[str, Any]) -> bytes:
    """The value with its own checksum, as bytes."""
    return spelled({**value, SEAL: xxhash.xxh3_128_hexdigest(spelled(value))})


def unsealed(content: bytes, name: str) -> dict[str, Any]:
    """The inverse of `sealed`. Raises CorruptStore, naming `name`, when any byte has changed."""
    try:
        value = json.loads(content)
        seal = value.pop(SEAL)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptStore(f"{name} is not readable ({error!r}); `pgm cache verify` says what else is wrong") from error
    if xxhash.xxh3_128_hexdigest(spelled(value)) != seal or content != spelled({**value, SEAL: seal}):
        raise CorruptStore(f"{name} is not as it was written: its own checksum fails; run `pgm cache verify`")
    return value  # type: ignore[no-any-return]


def put_sealed(storage: Storage, key: str, value: dict[str, Any]) -> bool:
    """Put sealed JSON if absent; True where this call made it."""
    return storage.put(key, [sealed(value)])


def read_sealed(storage: Storage, key: str) -> dict[str, Any]:
    """Read sealed JSON. Raises FileNotFoundError and CorruptStore."""
    return unsealed(storage.read(key), f"{storage.url}/{key}")
