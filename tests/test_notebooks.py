"""The notebooks of examples/notebooks run from their first cell to their last, in a kernel as Jupyter starts it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, digits_root: Path) -> Iterator[Any]:
    """One for all of them, which imports torch once, in a folder where the digits lie."""
    manager = pytest.importorskip("jupyter_client").KernelManager(kernel_name="python3")
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "data").mkdir()
    (folder / "data" / "digits").symlink_to(digits_root)
    manager.start_kernel(cwd=str(folder))
    yield manager
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        del manager
        gc.collect()


# Jupyter's own: a kernel that was told to go keeps its sockets until they are collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "default::pytest.PytestWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, kernel: Any) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient(nbformat.read(path, 4), km=kernel, timeout=120)
    assert all(not cell.get("outputs") for cell in client.nb.cells), "outputs are not kept in the repository"
    client.execute()
    client.kc.stop_channels()
    assert sum(cell.cell_type == "code" for cell in client.nb.cells) >= 3
    del client
    gc.collect()
