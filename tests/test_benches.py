"""The benches are scripts that no other test runs: they must still find what they import of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench"
# These run in environments of their own.
ELSEWHERE = {"parity_mmsa_peer"}


def test_every_bench_can_be_imported() -> None:
    names = [path.stem for path in sorted(BENCH.glob("*.py")) if path.stem not in ELSEWHERE]
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=BENCH, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
