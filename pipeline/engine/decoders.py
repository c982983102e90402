"""Who decodes ahead of the encoder: its own thread, threads, or processes. By what was measured:

- texts beside a CPU encoder: its own thread. A second one makes the two take turns at the interpreter (454 against 42
  microseconds a text);
- pictures and sounds there: one thread;
- beside a GPU, which leaves the cores to decoding: texts by one thread, as a tokenizer has threads of its own; pictures
  and sounds by processes, as Pillow's and the transformers library's processors hold the interpreter, and two threads
  make no more pictures than one (1,117 against 1,059 microseconds each).

A decoder process that dies (a crash in a codec, the kernel short of memory) is replaced, and its items are decoded
again one by one; one that ends its decoder again and again is that item's failure.
"""

from __future__ import annotations

import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack

from ...cache.errors import RunFailed
from ..encode import Failure
from ..encoders import FrozenEncoder
from ..media import Media
from . import decoder
from .decoding import Part, decode_part

DECODED_TOGETHER = 8
MOST_DECODERS = 8
TRIED = 3  # decoders that an item may end


class Decoding:
    """Decodes parts of tasks for an encoder, `ahead` of them at a time; leave the with block to stop."""

    def __init__(self, encoder: FrozenEncoder) -> None:
        self.encoder = encoder
        self.threads, self.processes = decoders(encoder)
        self._stack = ExitStack()
        self._pool: Executor | None = None
        self._family: DecoderFamily | None = None

    @property
    def ahead(self) -> int:
        """Parts that may be under way, or waiting, at once."""
        return self.threads + 2 if self.threads else 1

    @property
    def together(self) -> int:
        """Items of a part."""
        return DECODED_TOGETHER if self.threads else 8 * DECODED_TOGETHER

    def __enter__(self) -> Decoding:
        if self.processes and (content := pickled(self.encoder)) is not None:
            self._family = self._stack.enter_context(DecoderFamily(content))
        if self.threads:
            self._pool = self._stack.enter_context(ThreadPoolExecutor(self.threads, "decode"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._stack.close()

    def submit(self, media: Sequence[Media]) -> Future[Part]:
        """A part under way; without threads it is decoded here and now."""
        if self._pool is not None and self._family is not None:
            return self._pool.submit(self._family.decode, media)
        if self._pool is not None:
            return self._pool.submit(decode_part, self.encoder, media)
        done: Future[Part] = Future()
        done.set_result(decode_part(self.encoder, media))
        return done


def decoders(encoder: FrozenEncoder) -> tuple[int, bool]:
    """How many threads decode beside the encoder's own, and whether each has a process do it."""
    if encoder.device.type != "cuda":
        return (0 if encoder.medium == "text" else 1), False
    if encoder.medium == "text":
        return 1, False
    return max(2, min(MOST_DECODERS, len(os.sched_getaffinity(0)))), encoder.medium in ("vision", "audio")


def pickled(encoder: FrozenEncoder) -> bytes | None:
    """An encoder without its model, for another process; None for one that cannot travel."""
    try:
        return pickle.dumps(encoder.without_model())
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


class DecoderFamily:
    """A template process and the decoders it has forked; `decode` is called by as many threads as there may be.

    Raises RunFailed where the encoder (pickled) cannot be brought to another process.
    """

    def __init__(self, encoder: bytes) -> None:
        self.encoder = encoder
        self.lock = threading.Lock()
        self.free: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self.all: list[socket.socket] = []
        self._start()

    def __enter__(self) -> DecoderFamily:
        return self

    def __exit__(self, *_: object) -> None:
        # Each ends when its socket does.
        for one in [*self.all, self.control]:
            one.close()
        self.template.wait()

    def decode(self, media: Sequence[Media]) -> Part:
        """The items of a part. Raises what decoding them must not go on after."""
        try:
            one = self.free.get_nowait()
        except queue.Empty:
            one = self._fork()
        part = self._asked(one, media)
        return joined([self._alone(source) for source in media]) if part is None else part

    def _alone(self, source: Media) -> Part:
        """One item, by decoders that nobody has used: what ends them is the item."""
        for _ in range(TRIED):
            if (part := self._asked(self._fork(), [source])) is not None:
                return part
        why = f"{source.name}: decoding it ended the process, {TRIED} times"
        return Part(digests=[source.digest()], failures={0: Failure(why)})

    def _asked(self, one: socket.socket, media: Sequence[Media]) -> Part | None:
        """What a decoder makes of some sources; None where it is no more."""
        try:
            decoder.send(one, pickle.dumps(list(media)))
            answer: Part | Exception = decoder.answered(one)
        except (EOFError, OSError):
            one.close()
            return None
        self.free.put(one)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _fork(self) -> socket.socket:
        """A new decoder; where the template is no more, of another."""
        here, there = socket.socketpair()
        with self.lock, there:
            self.all.append(here)
            try:
                socket.send_fds(self.control, [b"f"], [there.fileno()])
            except OSError:
                self.control.close()
                self.template.wait()
                self._start()
                socket.send_fds(self.control, [b"f"], [there.fileno()])
        return here

    def _start(self) -> None:
        self.control, there = socket.socketpair()
        command = [sys.executable, "-m", decoder.__name__, str(there.fileno())]
        # One thread each: there is a decoder for every core.
        few = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
        path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        with there:
            self.template = subprocess.Popen(
                command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, **few, **path}
            )
        try:
            decoder.send(self.control, self.encoder)
            decoder.exactly(self.control, len(decoder.READY))
        except (EOFError, OSError) as error:
            self.control.close()
            self.template.wait()
            raise RunFailed("The process that decodes could not be started; what it said stands above.") from error


def joined(parts: Sequence[Part]) -> Part:
    """Several parts as one."""
    whole = Part()
    for part in parts:
        start = len(whole.digests)
        whole.places += [start + place for place in part.places]
        whole.failures |= {start + place: why for place, why in part.failures.items()}
        whole.items += part.items
        whole.lengths += part.lengths
        whole.digests += part.digests
        whole.read += part.read
        whole.decode += part.decode
    return whole
