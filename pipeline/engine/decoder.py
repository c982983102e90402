"""Decoder processes: `python -m pgm.pipeline.engine.decoder FD`, one template that forks as many as are asked for.

The template imports the libraries and unpickles the encoder (without its model) once; a fork costs milliseconds, and
its pages are shared until they are written to. A decoder takes pickled sources from its socket and answers with a
pickled `Part` whose arrays lie in anonymous shared memory, which travels as a file descriptor: nothing is left anywhere
whoever is killed. Decoders and template end when the other end of their socket does.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import mmap
import os
import pickle
import signal
import socket
import struct
import sys
import tempfile
from typing import IO, Any

from ..decode import image
from .decoding import decode_part

SIZE = struct.Struct("<Q")
ALIGNED = 64
READY = b"r"
PR_SET_PDEATHSIG = 1


class RecordLock:
    """One holder among processes that share a file; the kernel lets go of what a dead one held."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def __enter__(self) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self.file, fcntl.LOCK_UN)


def serve(fd: int) -> None:
    """The template: unpickle the encoder that comes first, say so, then fork a decoder for every socket that comes."""
    # Ctrl-C goes to all processes of a terminal; it is the worker that ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    encoder = pickle.loads(receive(control))
    if encoder.medium == "audio":
        # Resampling: half a second to import, here once and not in every decoder.
        import scipy.signal  # noqa: F401
    # A collection would write to every page that the decoders share.
    gc.collect()
    gc.freeze()
    # Large pictures are unpacked one at a time in all decoders together.
    image._large = RecordLock(anonymous_file())  # type: ignore[assignment]
    control.sendall(READY)
    while True:
        content, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not content:
            return
        if os.fork() == 0:
            end_with_the_template()
            control.close()
            decode_all(encoder, socket.socket(fileno=fds[0]))
            os._exit(0)
        os.close(fds[0])


def end_with_the_template() -> None:
    """Also a decoder that hangs in a codec, and reads no socket, ends with what forked it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def decode_all(encoder: Any, worker: socket.socket) -> None:
    """A decoder: answer until the other end is closed."""
    try:
        worker.sendall(READY)
        while True:
            answer(worker, decode_part(encoder, pickle.loads(receive(worker))))
    except (EOFError, OSError):
        return
    except Exception as error:
        # A request that cannot be met ends the run: it is raised where it was asked for.
        answer(worker, error)


def answer(to: socket.socket, value: Any) -> None:
    """Send a value, its arrays' bytes in shared memory."""
    arrays: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    sizes = pickle.dumps([len(view) for view in views])
    with anonymous_file() as file:
        for view in views:
            file.write(view)
            file.write(bytes(-len(view) % ALIGNED))
        file.flush()
        to.sendall(SIZE.pack(len(sizes)) + sizes + SIZE.pack(len(content)) + content)
        socket.send_fds(to, [b"m"], [file.fileno()])


def answered(sender: socket.socket) -> Any:
    """The value; its arrays are views of the shared memory, which lives as long as they. Raises EOFError."""
    sizes = pickle.loads(receive(sender))
    content = receive(sender)
    mark, fds, _, _ = socket.recv_fds(sender, 1, 1)
    if not mark or not fds:
        raise EOFError
    try:
        memory = memoryview(mmap.mmap(fds[0], 0)) if any(sizes) else memoryview(b"")
    finally:
        os.close(fds[0])
    views, at = [], 0
    for size in sizes:
        views.append(memory[at : at + size])
        at += size + -size % ALIGNED
    return pickle.loads(content, buffers=views)


def anonymous_file() -> IO[bytes]:
    """A file of memory without a name, or of the temporary folder where there is no such thing."""
    return os.fdopen(os.memfd_create("pgm"), "wb") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def send(to: socket.socket, content: bytes) -> None:
    """Send bytes with their number before them."""
    to.sendall(SIZE.pack(len(content)) + content)


def receive(sender: socket.socket) -> bytes:
    """What `send` sent. Raises EOFError where the other end is closed."""
    [size] = SIZE.unpack(exactly(sender, SIZE.size))
    return exactly(sender, size)


def exactly(sender: socket.socket, size: int) -> bytes:
    """So many bytes. Raises EOFError."""
    parts, left = [], size
    while left:
        part = sender.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
