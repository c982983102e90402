"""A place of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from pgm.cache.storage import LocalStorage, Storage, storage_at


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage: a folder, and a prefix of a bucket."""
    if request.param == "local":
        return LocalStorage(tmp_path / "root")
    return storage_at(f"{request.getfixturevalue('s3_bucket')}/some/prefix")
