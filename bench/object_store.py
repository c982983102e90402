"""Features in an object store: an epoch from a warm mirror against the same in a folder, a cold one against the wire.

    .venv/bin/python bench/object_store.py [--gb 0.5] [--dir DIR]

The server is a plain one of this machine, in a process of its own, that sends files by sendfile. Downloads, downloads
into files and cold epochs take turns; a cold epoch starts without a mirror and ends with every batch read and the
mirror in the page cache. Ratios are of first quartiles in one run: what others take only ever adds. What the client
takes of a processor is told beside them: on a busy machine, or one that the server shares, it is what limits.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import obstore
from measure import Row, in_turns, machine, print_rows
from obstore.store import S3Store
from pgm.cache import Features, open_features
from pgm.cache.storage.remote import AT_ONCE, PIECE
from random_store import DIM, TOKENS, store_of

BATCH = 64
REPEAT = 15
LISTED = '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>'
WRITTEN = "2026-01-01T00:00:00.000Z"
OBJECT = f"<Contents><Key>{{}}</Key><Size>{{}}</Size><ETag>0</ETag><LastModified>{WRITTEN}</LastModified></Contents>"


class Handler(BaseHTTPRequestHandler):
    """S3's reading half over the working folder: HEAD, GET with a range, and a list without a delimiter."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or what follows its header waits 40 ms for the client to acknowledge that

    def do_GET(self) -> None:
        place = urllib.parse.urlsplit(self.path)
        key = urllib.parse.unquote(place.path).strip("/").partition("/")[2]
        if not key:
            self.list(urllib.parse.parse_qs(place.query).get("prefix", [""])[0])
        elif not os.path.isfile(key):
            self.head(404, 0)
        else:
            self.send(key, os.path.getsize(key))

    do_HEAD = do_GET

    def send(self, key: str, size: int) -> None:
        """A file, or the part of it that was asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        start, stop = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted else (0, size)
        self.head(206 if wanted else 200, stop - start, f"bytes {start}-{stop - 1}/{size}" if wanted else "")
        if self.command == "HEAD":
            return
        with open(key, "rb") as file:
            while start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)

    def list(self, prefix: str) -> None:
        """Every file below a prefix."""
        found = sorted(str(path) for path in Path(prefix or ".").rglob("*") if path.is_file())
        body = LISTED.format("".join(OBJECT.format(name, os.path.getsize(name)) for name in found)).encode()
        self.head(200, len(body))
        self.wfile.write(body)

    def head(self, status: int, length: int, content_range: str = "") -> None:
        """Status and headers."""
        self.send_response(status)
        self.send_header("content-length", str(length))
        self.send_header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("etag", '"0"')
        if content_range:
            self.send_header("content-range", content_range)
        self.end_headers()
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def serve() -> None:
    """Serve the working folder; the port goes to stdout."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def download(store: S3Store, pieces: list[tuple[str, int, int]]) -> None:
    """The bytes of all objects by obstore alone, as many requests at once as the cache makes."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda piece: obstore.get_range(store, piece[0], start=piece[1], end=piece[2]), pieces):
            pass


def save(store: S3Store, pieces: list[tuple[str, int, int]], folder: Path) -> None:
    """The same into new files, each piece written as it comes: the least that a mirror can do."""
    folder.mkdir()
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        files = {name: stack.enter_context(open(folder / f"{n}", "wb")) for n, (name, _, _) in enumerate(pieces)}

        def piece(name: str, start: int, stop: int) -> int:
            return os.pwrite(files[name].fileno(), obstore.get_range(store, name, start=start, end=stop), start)

        for _ in pool.map(lambda each: piece(*each), pieces):
            pass


def pieces_of(root: Path) -> list[tuple[str, int, int]]:
    """Every object below a folder in ranges of PIECE."""
    sizes = {str(path.relative_to(root)): path.stat().st_size for path in sorted(root.rglob("*")) if path.is_file()}
    return [(name, at, min(at + PIECE, size)) for name, size in sizes.items() for at in range(0, size, PIECE)]


def epoch(features: Features) -> None:
    """One shuffled pass."""
    for _ in features.batches(BATCH, shuffle=0):
        pass


def timed(work: Callable[[], None], mirror: Path) -> tuple[float, float]:
    """Seconds of a call, by the clock and of this process's processors, with nothing on this disk when it begins."""
    shutil.rmtree(mirror, ignore_errors=True)
    begun, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    took, now = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    return took, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def measure(root: Path, size: float) -> list[Row]:
    """The rows; `root` is an empty folder."""
    count = int(size * 1e9) // (TOKENS * DIM * 2)
    tokens = np.random.default_rng(0).standard_normal((count * TOKENS, DIM), np.float32).astype(np.float16)
    here = store_of(root / "bucket", "bench", tokens)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], cwd=root / "bucket", stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    mirror = root / "mirror"
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "us-east-1",
        "PGM_MIRROR": str(mirror),
    }
    url = f"s3://bucket/{Path(here.url).name}"
    try:
        store = S3Store("bucket", client_options={"allow_http": True})
        pieces = pieces_of(root / "bucket")
        contest: list[Callable[[], None]] = [
            lambda: download(store, pieces),
            lambda: save(store, pieces, mirror),
            lambda: epoch(open_features(url)),
        ]
        took = np.array([[timed(work, mirror) for work in contest] for _ in range(REPEAT)])
        (raw, raw_used), (kept, kept_used), (first, used) = np.quantile(took, 0.25, axis=0).tolist()
        there = open_features(url)
        rows = np.random.default_rng(1).permutation(count)
        batches = [rows[at : at + BATCH] for at in range(0, count - BATCH + 1, BATCH)]
        warm = in_turns({"folder": (here.gather, batches), "mirror": (there.gather, batches)}, 5)
    finally:
        server.kill()
        server.wait()
    rate = f"{tokens.nbytes / raw / 1e6:,.0f} MB/s raw, {tokens.nbytes / first / 1e6:,.0f} MB/s read"
    return [
        Row("epoch from a warm mirror", warm["folder"] / warm["mirror"], "of a folder's", least=0.95),
        Row("cold epoch", raw / first, "of obstore's raw download", least=0.7, note=rate),
        Row("download into files", raw / kept, "of obstore's raw download", note="the least that a mirror can do"),
        Row("client's processor", used, "s a cold epoch", note=f"{raw_used:.2f} s raw, {kept_used:.2f} s into files"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=0.5, help="of float16 tokens")
    parser.add_argument("--dir", type=Path, help="where to write, default a temporary folder")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
        return
    print(machine())
    with tempfile.TemporaryDirectory(dir=chosen.dir) as folder:
        print_rows("Features in an object store", measure(Path(folder), chosen.gb))


if __name__ == "__main__":
    main()
