"""Other dataset libraries on the features of bench/cache.py, each against np.take in RAM; one JSON line a library.

`python bench/cache_peers.py FOLDER SECONDS` reads FOLDER/tokens.npy, writes it once in each library's own format and
reads shuffled batches of it. It imports nothing of PgM, so that it may run in an environment of its own. Where a
library has no batches, it gets the easier task: samples one at a time, not stacked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import in_turns

BATCH = 64
Read = Callable[[np.ndarray], Any]


def streaming(folder: Path, x: np.ndarray) -> Read:
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"x": f"ndarray:float16:{x.shape[1]},{x.shape[2]}"}) as out:
        for sample in x:
            out.write({"x": sample})
    dataset = StreamingDataset(local=str(folder), batch_size=BATCH)
    return lambda rows: [dataset[row]["x"] for row in rows.tolist()]


def tensordict(folder: Path, x: np.ndarray) -> Read:
    import torch
    from tensordict import MemoryMappedTensor

    mapped = MemoryMappedTensor.from_tensor(torch.from_numpy(x), filename=folder / "x.memmap")
    return lambda rows: mapped[torch.from_numpy(rows)]


def datasets(folder: Path, x: np.ndarray) -> Read:
    from datasets import Array2D, Dataset, Features, load_from_disk
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    features = Features({"x": Array2D(x.shape[1:], "float16")})
    cache = str(folder / "cache")
    made = Dataset.from_generator(arrow_rows, gen_kwargs={"folder": str(folder)}, features=features, cache_dir=cache)
    made.save_to_disk(str(folder / "arrow"))
    dataset = load_from_disk(str(folder / "arrow")).with_format("numpy")
    return lambda rows: dataset[rows.tolist()]["x"]


def arrow_rows(folder: str) -> Iterator[dict[str, np.ndarray]]:
    """What `datasets` can hash and run: a function of a path."""
    return ({"x": sample} for sample in np.load(Path(folder).parent / "tokens.npy", mmap_mode="r")[:1000])


PEERS: dict[str, Callable[[Path, np.ndarray], Read]] = {
    "MosaicML Streaming (MDS), dataset[row]": streaming,
    "TensorDict, MemoryMappedTensor[rows]": tensordict,
    "HF datasets (Arrow), dataset[rows]": datasets,
}


def measured(make: Callable[[Path, np.ndarray], Read], root: Path, x: np.ndarray, seconds: float) -> dict[str, Any]:
    """A library's share of the limit."""
    folder = root / make.__name__
    folder.mkdir()
    try:
        read = make(folder, x)
    except ImportError as error:
        return {"note": f"not installed: {error}"}
    # Arrow needs a minute for a gigabyte.
    count = 1000 if make is datasets else len(x)
    order = np.random.default_rng(1).permutation(count)
    batches = [order[start : start + BATCH] for start in range(0, count - BATCH + 1, BATCH)]
    warm = np.empty((BATCH, *x.shape[1:]), x.dtype)
    limit = (lambda rows: np.take(x, rows, axis=0, out=warm, mode="clip")), batches
    took = in_turns({"limit": limit, "library": (read, batches)}, seconds)
    return {"ratio": took["limit"] / took["library"], "note": f"{BATCH / took['library']:,.0f} samples/s"}


def main() -> None:
    """Measure each library that is installed."""
    root, seconds = Path(sys.argv[1]), float(sys.argv[2])
    x = np.load(root / "tokens.npy")
    for name, make in PEERS.items():
        print(json.dumps({"name": name, **measured(make, root, x, seconds / len(PEERS))}), flush=True)


if __name__ == "__main__":
    main()
