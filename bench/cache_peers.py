"""Other dataset libraries on the features of bench/cache.py: samples a second, one JSON line a library.

`python bench/cache_peers.py FOLDER` reads FOLDER/tokens.npy, writes it once in each library's own format and reads it
back. It imports nothing of PgM, so that it may run in an environment of its own (bench/cache.py --peers PYTHON). Every
library gets its easiest task: samples one at a time, not stacked into a batch.
"""

import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 3.0


def rate(samples: Iterable[Any], seconds: float = SECONDS) -> float:
    """Samples a second over at most `seconds`, after the first 64."""
    count, begun = 0, time.perf_counter()
    for count, _ in enumerate(samples, 1):
        if count == 64:
            begun = time.perf_counter()
        if count % 64 == 0 and time.perf_counter() - begun > seconds:
            break
    return (count - 64) / (time.perf_counter() - begun)


def streaming(folder: Path, tokens: np.memmap, order: np.ndarray) -> Iterator[Any]:
    from streaming import MDSWriter, StreamingDataset

    if not folder.exists():
        with MDSWriter(out=str(folder), columns={"x": f"ndarray:float16:{tokens.shape[1]},{tokens.shape[2]}"}) as out:
            for sample in tokens:
                out.write({"x": sample})
    dataset = StreamingDataset(local=str(folder), batch_size=64)
    return (dataset[int(row)]["x"] for row in order)


def litdata(folder: Path, tokens: np.memmap, order: np.ndarray) -> Iterator[Any]:
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    if not folder.exists():
        folder.mkdir()
        writer = BinaryWriter(str(folder), chunk_bytes="64MB")
        for row, sample in enumerate(tokens):
            writer[row] = {"x": sample}
        writer.done()
        writer.merge(1)
    dataset = StreamingDataset(str(folder))
    return (dataset[int(row)]["x"] for row in order)


def datasets(folder: Path, tokens: np.memmap, order: np.ndarray) -> Iterator[Any]:
    from datasets import Array2D, Dataset, Features, load_from_disk

    if not folder.exists():
        features = Features({"x": Array2D(tokens.shape[1:], "float16")})
        made = Dataset.from_generator(
            arrow_rows, gen_kwargs={"path": str(tokens.filename)}, features=features, cache_dir=f"{folder}.tmp"
        )
        made.save_to_disk(str(folder))
    dataset = load_from_disk(str(folder)).with_format("numpy")
    return (dataset[int(row)]["x"] for row in order)


def arrow_rows(path: str) -> Iterator[dict[str, np.ndarray]]:
    """What `datasets` can hash and run: a function of a path."""
    return ({"x": sample} for sample in np.load(path, mmap_mode="r"))


def webdataset(folder: Path, tokens: np.memmap, order: np.ndarray) -> Iterator[Any]:
    import webdataset as wds

    folder.mkdir(exist_ok=True)
    step, paths = 800, []
    for start in range(0, len(tokens), step):
        paths.append(folder / f"{start:06d}.tar")
        if not paths[-1].exists():
            with tarfile.open(paths[-1], "w") as tar:
                for row in range(start, min(start + step, len(tokens))):
                    content = io.BytesIO()
                    np.save(content, tokens[row])
                    member = tarfile.TarInfo(f"{row:06d}.npy")
                    member.size = content.tell()
                    content.seek(0)
                    tar.addfile(member, content)
    return iter(wds.WebDataset([str(path) for path in paths], shardshuffle=False).decode().to_tuple("npy"))


PEERS: dict[str, Callable[[Path, np.memmap, np.ndarray], Iterator[Any]]] = {
    "MosaicML Streaming, random ds[i]": streaming,
    "LitData, random ds[i]": litdata,
    "HF datasets (Arrow), random ds[i]": datasets,
    "WebDataset, sequential": webdataset,
}


def main() -> None:
    """Measure each library that is installed."""
    root = Path(sys.argv[1])
    tokens = np.load(root / "tokens.npy", mmap_mode="r")
    order = np.random.default_rng(1).permutation(len(tokens))
    for name, make in PEERS.items():
        try:
            # Twice: the first pass warms the page cache and the library.
            best = max(rate(make(root / make.__name__, tokens, order)) for _ in range(2))
            line = {"name": name, "rate": best}
        except ImportError:
            line = {"name": name, "why": "not installed"}
        except Exception as error:
            line = {"name": name, "why": f"{type(error).__name__}: {error}"[:60]}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
