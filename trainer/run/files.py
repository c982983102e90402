"""Small files of a run's folder that are either whole or not there: temporary name, flush, rename."""

import json
import math
import os
from pathlib import Path
from typing import Any

from ...cache.errors import CorruptStore
from ...cache.storage.local import explain, settle, write_parts
from ...cache.storage.sealed_json import sealed, spelled, unsealed


def write_atomically(path: Path, content: bytes, sync: bool = False) -> None:
    """Write a small file whole or not at all; with `sync`, on the disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain(path):
        try:
            temporary.unlink(missing_ok=True)
            write_parts(temporary, [content], flush=sync)
            os.replace(temporary, path)
            if sync:
                settle([path.parent])
        finally:
            temporary.unlink(missing_ok=True)


def json_text(value: Any) -> str:
    """JSON as its readers take it: a metric that is undefined, NaN here, is null there."""
    return json.dumps(_defined(value), indent=1, allow_nan=False)


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _defined(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any, sync: bool = False) -> None:
    """JSON for people and programs: sorted, indented, one final newline."""
    write_atomically(path, spelled(value), sync)


def write_sealed_json(path: Path, value: dict[str, Any], sync: bool = False) -> None:
    """JSON that carries the checksum of its other fields."""
    write_atomically(path, sealed(value), sync)


def read_sealed_json(path: Path) -> dict[str, Any]:
    """JSON written by `write_sealed_json`, to the byte; CorruptStore when any has changed."""
    return unsealed(path.read_bytes(), str(path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CorruptStore names the file when it is not one."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptStore(f"{path} is not readable JSON ({error}); remove the run and train it again") from error
    if not isinstance(value, dict):
        raise CorruptStore(f"{path} should hold a JSON object and holds {type(value).__name__}")
    return value
