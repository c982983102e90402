"""The cache's promises in numbers: reading against memory's own speed and against others, opening, growing, writing.

    .venv/bin/python bench/cache.py [--quick] [--only reading|peers|scale|writing] [--peers PYTHON]

Every row is a number with the bar it must meet, where one was set; ratios are of one run, in which the contenders take
turns. --peers is the interpreter of an environment that has mosaicml-streaming, tensordict and datasets, and numpy and
torch; by default this one. Takes five minutes and four times the bytes on disk; --quick about one and a half minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cache_reading import reading
from cache_scale import scale
from cache_writing import writing
from measure import Row, machine, print_rows
from random_store import DIM, TOKENS


def peers(root: Path, tokens: np.ndarray, python: str, seconds: float) -> list[Row]:
    """Other libraries, in a process and perhaps an environment of their own, which measures the limit anew."""
    np.save(root / "tokens.npy", tokens.reshape(-1, TOKENS, DIM))
    command = [python, str(Path(__file__).with_name("cache_peers.py")), str(root), str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [Row(each["name"], each.get("ratio"), "of the limit", note=each["note"]) for each in found]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the bytes and of the time")
    parser.add_argument("--only", choices=("reading", "peers", "scale", "writing"))
    parser.add_argument("--gb", type=float, help="of float16 tokens, default 1.05; with --quick 0.2")
    parser.add_argument("--dir", type=Path, help="where to write, default a temporary folder")
    parser.add_argument("--peers", default=sys.executable, help="interpreter for the other libraries")
    chosen = parser.parse_args()
    size, share = chosen.gb or (0.2 if chosen.quick else 1.05), 0.2 if chosen.quick else 1.0
    count = int(size * 1e9) // (TOKENS * DIM * 2)
    print(f"{machine()}\n{count:,} samples of ({TOKENS}, {DIM}) float16: {count * TOKENS * DIM * 2 / 1e9:.2f} GB")
    tokens = np.random.default_rng(0).standard_normal((count * TOKENS, DIM), np.float32).astype(np.float16)
    tables: dict[str, tuple[str, Callable[[Path], list[Row]]]] = {
        "reading": ("Reading shuffled batches of 64, page cache warm", lambda p: reading(p, tokens, 60 * share)),
        "peers": ("The same by other libraries", lambda p: peers(p, tokens, chosen.peers, 20 * share)),
        "scale": ("Opening, growing, committing", lambda p: scale(p, 20_000 if chosen.quick else 100_000)),
        "writing": ("Writing, on the disk", lambda p: writing(p, tokens, 3 if chosen.quick else 7)),
    }
    for name, (title, measure) in tables.items():
        if chosen.only in (None, name):
            with tempfile.TemporaryDirectory(dir=chosen.dir) as folder:
                begun = time.perf_counter()
                rows = measure(Path(folder))
                print_rows(f"{title} ({time.perf_counter() - begun:.0f} s)", rows)


if __name__ == "__main__":
    main()
