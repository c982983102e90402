"""One flipped byte in any kind of file: `pgm cache verify` finds it, and no extraction builds on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pgm.cache import DatasetCard, open_dataset
from pgm.cache.commands import cache_app
from pgm.cache.dataset.verify import verify_dataset, verify_store
from pgm.cache.errors import CorruptStore
from pgm.pipeline import Collection, ExtractOptions, StoreOptions, extract
from pgm.pipeline.engine import segments
from pgm.pipeline.media import FileMedia, TextMedia
from typer.testing import CliRunner, Result

# Of every format: data first, then what says what it is.
FILES = {
    "zarr": [
        "text--*/segments/*/tokens/c/0/0", "text--*/segments/*/items/c/0", "text--*/segments/*/checksums/c/0",
        "text--*/segments/*/lengths/c/0", "text--*/segments/*/zarr.json", "text--*/segments/*/tokens/zarr.json",
    ],
    "hdf5": ["text--*/segments/*.h5"],
}  # fmt: skip
BESIDE = ["text--*/versions/*.index", "text--*/versions/*.json", "text--*/store.json", "samples/*", "versions/*.json"]
CASES = [(format_, pattern) for format_, own in FILES.items() for pattern in [*own, *BESIDE]]


def run(root: Path, format_: str) -> None:
    """Six texts and one that cannot be found, as the store has them or anew."""
    texts = [TextMedia(f"text number {row}") for row in range(6)]
    table = pa.table({"id": [f"t{row}" for row in range(7)], "split": ["train"] * 7})
    card = DatasetCard("toy", "retrieval", (), ())
    collection = Collection(card, table, {"text": [*texts, FileMedia(str(root / "no such file"))]})
    store = StoreOptions(format_)  # type: ignore[arg-type]
    extract(collection, root, ExtractOptions(preset="tiny", executor="serial", max_failures=1.0, store=store))


def invoked(root: Path, *options: str) -> Result:
    return CliRunner().invoke(cache_app, ["verify", "toy", "--features", str(root), *options])


def verify(root: Path, *options: str) -> int:
    return invoked(root, *options).exit_code


@pytest.mark.parametrize(("format_", "pattern"), CASES)
def test_a_flipped_byte_is_found_and_nothing_is_built_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str, pattern: str
) -> None:
    monkeypatch.setattr(segments, "SMALLEST_SEGMENT", 3 * 17 * 128 * 2)
    run(tmp_path, format_)
    whole = open_dataset(tmp_path, "toy").features("text")
    content, tokens = whole.content, whole.gather(np.arange(6))[0].copy()
    assert len(whole.version.segments) > 1
    assert verify(tmp_path) == 0
    path = sorted((tmp_path / "toy").glob(pattern))[0]
    kept = path.read_bytes()
    at = int(np.random.default_rng(len(kept)).integers(len(kept)))
    path.write_bytes(kept[:at] + bytes([kept[at] ^ 4]) + kept[at + 1 :])
    assert verify(tmp_path) == 1
    refused = ""
    try:
        run(tmp_path, format_)
    except CorruptStore as error:
        refused = str(error)
    # A damaged segment is made again without being asked; of the rest nobody can say what it would be.
    assert ("pgm cache verify" in refused) == ("segments" not in pattern)
    if refused:
        if path.name == "store.json":
            # What it would be is not known any more: it goes whole, and that is said.
            assert (
                "pgm cache rm" in CliRunner().invoke(cache_app, ["verify", "toy", "--features", str(tmp_path)]).output
            )
            path.write_bytes(kept)
        assert verify(tmp_path, "--discard") == (path.name != "store.json")
        run(tmp_path, format_)
    features = open_dataset(tmp_path, "toy").features("text")
    assert features.content == content
    assert np.array_equal(features.gather(np.arange(6))[0], tokens)
    assert "file not found" in features.error(6)
    assert verify_store(features.store.storage).problems == ()
    assert verify_dataset(features.store.storage.parent).problems == ()
