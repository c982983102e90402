"""`pgm cache push D hf://datasets/OWNER/NAME` and back, by huggingface_hub and a server that speaks the Hub's HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub import DatasetCard
from pgm.cache import open_dataset
from pgm.cache.errors import CorruptStore, NotFound, RunFailed, UserError
from pgm.pipeline import ExtractOptions, extract, load_dataset

from .conftest import run, said
from .hub_server import TOKEN, Hub, handler_of
from .test_transfer import contents, grow, is_sound

# Of huggingface_hub's own upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
URL = "hf://datasets/somebody/features"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("PGM_MIRROR", str(tmp_path / "mirror"))
    # The Hub's newer chunked transfer has a server of its own.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def commits(hub: Hub) -> int:
    """Commits after the one that made the repository."""
    return len(hub.commits["somebody/features"]) - 1


def test_there_and_back_again_in_one_commit_and_only_what_is_new(hub: Hub, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    grow(here, 60)
    pushed = said("cache", "push", "grown", URL, "--features", here)
    assert (pushed["segments"], pushed["version"], pushed["to"], commits(hub)) == (10, 1, URL, 1)
    assert said("cache", "push", "grown", URL, "--features", here)["segments"] == 0
    assert commits(hub) == 1
    said("cache", "pull", URL, "--features", back)
    assert contents(back) == contents(here)
    assert is_sound(back)
    grow(here, 66)
    pushed = said("cache", "push", "grown", URL, "--features", here)
    assert (pushed["segments"], pushed["there"], pushed["version"], commits(hub)) == (1, 10, 2, 2)
    assert said("cache", "pull", URL, "--features", back)["segments"] == 1
    assert len(open_dataset(back, "grown").samples) == 66


def test_the_page_says_what_is_in_it(hub: Hub, digits_root: Path, tmp_path: Path) -> None:
    few = load_dataset("digits", digits_root).limited(24).only(["text"])
    extract(few, tmp_path, ExtractOptions(executor="serial"))
    run("cache", "push", "digits", URL, "--features", tmp_path)
    page = hub.commits["somebody/features"][-1]["README.md"].decode()
    assert DatasetCard(page).data.pretty_name == "digits: frozen features"
    told = "| text | tiny-t5 | random | none: random weights | 24 | 0 | 0 |"
    for words in ("**Random weights**", told, "see scikit-learn", f"pgm cache pull {URL}", "24 samples"):
        assert words in page, page


def test_a_push_that_broke_off_sends_nothing_twice(hub: Hub, tmp_path: Path) -> None:
    grow(tmp_path, 60)
    hub.racing = True
    with pytest.raises(RunFailed, match="was committed to while this was sent; run the same command again"):
        run("cache", "push", "grown", URL, "--features", tmp_path)
    sent = [path for method, path in hub.asked if method == "PUT"]
    hub.asked.clear()
    run("cache", "push", "grown", URL, "--features", tmp_path)
    assert sent
    assert [path for method, path in hub.asked if method == "PUT"] == []
    run("cache", "pull", URL, "--features", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(tmp_path)


def test_what_is_wrong_is_said_plainly(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(kind: type[Exception], what: str, *words: Any) -> None:
        with pytest.raises(kind, match=what):
            run("cache", *words, "--features", tmp_path)

    grow(tmp_path, 12)
    refused(UserError, "it is written hf://datasets/OWNER/NAME", "push", "grown", "hf://somebody")
    refused(NotFound, "holds no version|has no version|is no dataset", "pull", URL)
    run("cache", "push", "grown", URL, "--features", tmp_path)
    files = hub.commits["somebody/features"][-1]
    [name, *_] = [name for name in files if name.endswith("lengths/c/0")]
    files[name] = b"x" + files[name][1:]
    with pytest.raises(CorruptStore, match="is not as it was written"):
        run("cache", "pull", URL, "--features", tmp_path / "back")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(UserError, "access was denied; the token in HF_TOKEN", "push", "grown", "hf://datasets/other/place")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(RunFailed, "the Hub does not answer", "push", "grown", URL)
