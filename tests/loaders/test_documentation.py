"""The code of docs/loaders.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.pipeline.imports import ArrayModality, import_arrays

PAGE = Path(__file__).parents[2] / "docs" / "loaders.md"


# On a machine with fewer cores than workers.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_examples_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    rng, count = np.random.default_rng(0), 420
    lengths = rng.integers(0, 6, count)
    text = ArrayModality(rng.normal(size=(count, 5, 8)).astype(np.float16), lengths)
    audio = ArrayModality(rng.normal(size=(count, 12)))
    import_arrays(
        tmp_path / "features", "digits", {"text": text, "audio": audio}, np.arange(count) % 10, ["train"] * count
    )
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 3
    known: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), known)
    assert known["remaining"] == count - 4 * 64
