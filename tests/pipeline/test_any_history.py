"""Whatever happens to a dataset, in whatever order: what is read is what a plain model says, and the content digest is
that of the contents, however they came together. Readers keep what they opened.

The encoder is real and tiny; items fail because their source cannot be read for a while. What was tried before may
stand, or be tried anew when its segment is put together otherwise: there the model takes what it finds.
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pgm.cache import DatasetCard, Features, open_dataset, open_features
from pgm.cache.dataset.collect import garbage, remove
from pgm.cache.dataset.compact import compact
from pgm.cache.dataset.verify import verify_dataset, verify_store
from pgm.cache.store import Index, Log, Store
from pgm.cache.store.index import FAILED, MISSING, OK
from pgm.pipeline import Collection, ExtractOptions, StoreOptions, extract
from pgm.pipeline.engine import segments
from pgm.pipeline.media import TextMedia

TEXTS = [f"{'word ' * (number % 4)}{number}" for number in range(6)]
CARD = DatasetCard("toy", "retrieval", (), ())
BROKEN: set[str] = set()
EXAMPLES = int(os.environ.get("PGM_HISTORIES", "12"))
Edit = tuple[str, str, int]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["grow", "change", "lose", "drop", "break", "break"]),
        st.sampled_from(TEXTS),
        st.integers(0, 9),
    ),
    max_size=3,
)
Outcome = tuple[str, str | None]  # "ok", "failed" or "missing"; of which text


@dataclass(frozen=True, slots=True)
class Text(TextMedia):
    """A text that cannot be read while it is one of BROKEN; its digest is known all the same."""

    def read(self) -> bytes:
        if self.text in BROKEN:
            raise OSError("out of order")
        return self.text.encode()

    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.text.encode())


def collection(samples: Sequence[tuple[str, str | None]], name: str = "") -> Collection:
    table = pa.table({"id": [id_ for id_, _ in samples], "split": ["train"] * len(samples)})
    return Collection(CARD, table, {"text": [None if text is None else Text(text) for _, text in samples]}, (), name)


def options(retry: bool = False, **store: Any) -> ExtractOptions:
    return ExtractOptions(
        preset="tiny", executor="serial", max_failures=1.0, retry_failed=retry, store=StoreOptions(**store)
    )


class Died(BaseException):
    """The end of a process, as far as the disk can tell."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What each text becomes, encoded alone."""
    root = tmp_path_factory.mktemp("alone")
    told = {}
    for number, text in enumerate(TEXTS):
        extract(collection([("it", text)]), root / str(number), options())
        told[text] = open_dataset(root / str(number), "toy").features("text")[0].copy()
    return told


@dataclass
class Published:
    """What a version holds, in order."""

    ids: list[str]
    outcomes: list[Outcome]
    features: Features | None = field(default=None, repr=False)


class History(RuleBasedStateMachine):
    oracle: ClassVar[dict[str, np.ndarray]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="pgm-history-"))
        self.samples: list[tuple[str, str | None]] = []
        self.store: dict[str, Published] = {}
        self.dataset: dict[str, Published] = {}
        self.readers: list[Published] = []
        self.ever: set[Outcome] = set()
        self.named = 0
        BROKEN.clear()

    @initialize(texts=st.lists(st.sampled_from(TEXTS), min_size=2, max_size=5), broken=st.sets(st.sampled_from(TEXTS)))
    def begin(self, texts: list[str], broken: set[str]) -> None:
        self._edit([("grow", text, 0) for text in texts])
        BROKEN.update(broken)
        self._extract(False, None)

    @rule(
        edits=EDITS,
        retry=st.booleans(),
        format_=st.sampled_from(["zarr", "hdf5"]),
        codec=st.sampled_from(["none", "zstd"]),
        limit=st.sampled_from([None, None, 2]),
    )
    def extract(self, edits: list[Edit], retry: bool, format_: str, codec: str, limit: int | None) -> None:
        self._edit(edits)
        self._extract(retry, limit, format=format_, codec=codec if format_ == "zarr" else "none")

    @rule(edits=EDITS, retry=st.booleans(), after=st.integers(0, 12))
    def crash(self, edits: list[Edit], retry: bool, after: int) -> None:
        """The run ends before the `after`-th change of a name, and whoever comes next finds what it left."""
        self._edit(edits)
        left, real = after, {name: getattr(os, name) for name in ("link", "rename")}

        def dying(name: str) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Died
                return real[name](*arguments, **named)

            return call

        with pytest.MonkeyPatch.context() as patched:
            for name in real:
                patched.setattr(os, name, dying(name))
            with suppress(Died):
                extract(collection(self.samples), self.root, options(retry))
        # Segments of what was not published may lie there.
        self.ever |= {("failed" if text in BROKEN else "ok", text) for _, text in self.samples}
        self._see("", retry, self.samples)
        self._sound()

    @precondition(lambda self: "" in self.dataset)
    @rule()
    def open(self) -> None:
        features = open_dataset(self.root, "toy").features("text")
        self.readers = [*self.readers[-1:], Published(**{**vars(self.dataset[""]), "features": features})]

    @precondition(lambda self: bool(self.dataset))
    @rule(keep=st.sampled_from([None, 1, 2]))
    def gc(self, keep: int | None) -> None:
        remove(garbage(self._dataset(), keep, 0))
        self._sound()

    @precondition(lambda self: "" in self.dataset and self.store[""] == self.dataset[""])
    @rule()
    def compact(self) -> None:
        compact(self._store().storage)
        self._sound()

    @invariant()
    def what_is_read_is_what_was_published(self) -> None:
        for name, wanted in self.dataset.items():
            version = name or ("" if "" in self.dataset else None)
            self._check(open_dataset(self.root, "toy", version).features("text"), wanted)
        for reader in self.readers:
            assert reader.features is not None
            self._check(reader.features, reader)
            self._check(pickle.loads(pickle.dumps(reader.features)), reader)

    def teardown(self) -> None:
        self._extract(False, None)
        self._sound()
        shutil.rmtree(self.root)

    def _edit(self, edits: Sequence[Edit]) -> None:
        """Samples that come, change, go or lose their source; texts that cannot be read, or can again."""
        for what, text, at in edits:
            row = at % len(self.samples) if self.samples else 0
            if what == "grow":
                self.samples.insert(row, (f"sample-{self.named}", text))
                self.named += 1
            elif what in ("change", "lose"):
                self.samples[row] = self.samples[row][0], text if what == "change" else None
            elif what == "drop" and len(self.samples) > 1:
                del self.samples[row]
            elif what == "break" and (there := self.samples[row][1]) is not None:
                BROKEN.symmetric_difference_update({there})

    def _extract(self, retry: bool, limit: int | None, **store: Any) -> None:
        samples = self.samples[:limit]
        name = f"limit-{limit}" if limit is not None and limit < len(self.samples) else ""
        extract(collection(samples, name), self.root, options(retry, **store))
        before = self._see(name, retry, samples)
        assert self.store[name] == self.dataset[name] == before

    def _see(self, name: str, retry: bool, samples: Sequence[tuple[str, str | None]]) -> Published | None:
        """Take what the store's and the dataset's latest versions hold, where the model allows it."""
        allowed = self._allowed(retry, samples)
        version = self._store().latest(name)
        before = self.store.get(name)
        if version is None:
            return None
        now = self._outcomes(open_features(self._store().storage, version.number), samples, before)
        if now != before:
            for outcome, possible in zip(now.outcomes, allowed, strict=True):
                assert outcome in possible
        published = [version for version in self._dataset_versions() if version.version.name == name]
        listed = max(published, key=lambda each: each.version.number) if published else None
        if listed is not None and listed.features("text").version.number == version.number:
            self.dataset[name] = now
        self.store[name] = now
        self.ever |= set(now.outcomes)
        return now

    def _allowed(self, retry: bool, samples: Sequence[tuple[str, str | None]]) -> list[set[Outcome]]:
        held = {outcome for version in self.store.values() for outcome in version.outcomes}
        failed = {pair for each in self.store.values() for pair in zip(each.ids, each.outcomes, strict=True)}
        told: list[set[Outcome]] = []
        for id_, text in samples:
            now: Outcome = ("failed", text) if text in BROKEN else ("ok", text)
            if text is None:
                told.append({("missing", None)})
            elif ("ok", text) in held:
                told.append({("ok", text)})
            elif (id_, ("failed", text)) in failed and not retry:
                told.append({("failed", text)})
            elif retry and text not in BROKEN:
                told.append({("ok", text)})
            else:
                told.append({now, *(self.ever & {("ok", text), ("failed", text)})})
        return told

    def _outcomes(
        self, features: Features, samples: Sequence[tuple[str, str | None]], before: Published | None
    ) -> Published:
        """What a version holds, where it is of these samples; otherwise what it held before."""
        texts = {self._digest(text): text for text in TEXTS}
        index = features.index
        found: list[Outcome] = []
        for row, status in enumerate(features.status.tolist()):
            found.append((status, texts.get(index.source[row].tobytes().hex())))
        same = len(found) == len(samples) and [text for _, text in found] == [text for _, text in samples]
        return Published([id_ for id_, _ in samples], found) if same or before is None else before

    def _check(self, features: Features, wanted: Published) -> None:
        assert len(features) == len(wanted.outcomes)
        index = Index.empty(len(features))
        for row, (status, text) in enumerate(wanted.outcomes):
            assert features.status[row] == status
            index.status[row] = {"ok": OK, "failed": FAILED, "missing": MISSING}[status]
            if status == "ok":
                assert text is not None
                assert np.array_equal(features[row], self.oracle[text])
                index.length[row] = len(self.oracle[text])
                index.checksum[row] = xxhash.xxh3_64_intdigest(self.oracle[text].tobytes())
            elif status == "failed":
                assert "out of order" in features.error(row)
        assert features.content == index.content_digest(features.dim, "float16")

    def _sound(self) -> None:
        dataset = self._dataset()
        if self.dataset:
            assert verify_dataset(dataset).problems == ()
        assert verify_store(self._store().storage).problems == ()

    def _dataset(self) -> Any:
        return self._store().storage.parent

    def _dataset_versions(self) -> list[Any]:
        return [open_dataset(self.root, "toy", number) for number in Log(self._dataset()).numbers()]

    def _store(self) -> Store:
        [folder] = (self.root / "toy").glob("text--*")
        return Store.open(str(folder))

    @staticmethod
    def _digest(text: str) -> str:
        return xxhash.xxh3_128_hexdigest(text.encode())


def test_any_history(tokens: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SMALLEST_SEGMENT", 2 * max(each.nbytes for each in tokens.values()))
    History.oracle = tokens
    case = History.TestCase
    case.settings = settings(max_examples=EXAMPLES, stateful_step_count=10, deadline=None, derandomize=True)
    case().runTest()
