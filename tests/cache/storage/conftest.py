"""A place of each kind, and a proxy that breaks what goes through it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pgm.cache.storage import LocalStorage, Storage, storage_at


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage: a folder, and a prefix of a bucket."""
    if request.param == "local":
        return LocalStorage(tmp_path / "root")
    return storage_at(f"{request.getfixturevalue('s3_bucket')}/some/prefix")


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
def proxy(s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The proxy, to which the environment's endpoint leads."""
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
