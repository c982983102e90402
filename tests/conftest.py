"""What several rooms' tests share."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# A shell that runs the tests in the background has children ignore Ctrl-C, which some tests send to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: a quarter of the time tests wait for processes they have started."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none of them is left alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the package remembers of this machine stays the tests' own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def children_that_run(word: str, pid: int | None = None) -> list[psutil.Process]:
    """The processes below one (by default this one) with a word in their command line.

    One that ends while they are looked at, or that nobody has waited for yet, is none of them.
    """
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


def dask_workers(pid: int) -> list[psutil.Process]:
    """Dask's local workers below a process: forks of multiprocessing's fork server."""
    found = children_that_run("multiprocessing.forkserver", pid)
    servers = [one.pid for one in found if one.ppid() == pid]
    return [one for one in found if one.pid not in servers]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded dataset, written once."""
    from pgm.pipeline import load_dataset

    root = tmp_path_factory.mktemp("digits data")  # a space, as users' paths have
    load_dataset("digits", root)
    return root


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server on loopback, for the whole session."""
    command = [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if told := re.search(r"Running on (http://[0-9.:]+)", line):
            break
    else:
        raise RuntimeError("moto's server did not start")
    # It writes a line a request: without a reader it would stop when the pipe is full.
    drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
    yield told[1]
    server.kill()
    server.wait()
    server.stderr.close()
    drain.wait()


@pytest.fixture
def s3_bucket(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """s3://... of a new bucket, which the environment's variables lead to; the mirror is the test's own."""
    name = f"test-{secrets.token_hex(4)}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")).close()
    for variable, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "PGM_MIRROR": str(tmp_path / "mirror"),
    }.items():
        monkeypatch.setenv(variable, value)
    return f"s3://{name}"


@dataclass
class FaultyProxy:
    """An HTTP proxy in front of the S3 server. faults: (does it apply to a method and path, what happens), once each.

    "500" and "503" answer so; "lost" lets the server do it and drops the answer; "stall" never answers; "cut" sends
    half of the answer's body; "flip" one wrong byte in it.
    """

    endpoint: str
    faults: list[tuple[Callable[[str, str], bool], str]] = field(default_factory=list)
    met: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> str | None:
        with self._lock:
            for position, (applies, what) in enumerate(self.faults):
                if applies(method, path):
                    self.faults.pop(position)
                    self.met.append((method, path, what))
                    return what
        return None


def handler_of(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    """The proxy's answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            fault = proxy.fault(self.command, self.path)
            if fault in ("500", "503"):
                self.send_response(int(fault))
                self.send_header("content-length", "0")
                self.end_headers()
                return
            if fault == "stall":
                time.sleep(3)
                self.close_connection = True
                return
            server = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"))
            server.request(self.command, self.path, content, dict(self.headers))
            response = server.getresponse()
            body = response.read()
            server.close()
            if fault == "lost":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if fault == "flip":
                body = bytes([body[0] ^ 1]) + body[1:]
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                    self.send_header(name, value)
            length = response.getheader("content-length") if self.command == "HEAD" else len(body)
            self.send_header("content-length", str(length))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
            self.close_connection = fault == "cut"

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            return

    return Handler


@pytest.fixture
def proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The proxy, to which the environment's endpoint leads; ask for it after the bucket."""
    proxy = FaultyProxy(s3_endpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(proxy))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    server.shutdown()
    thread.join()
    server.server_close()
