"""Who decodes ahead of the encoder: its own thread, another one, or processes. By what was measured:

- beside a CPU encoder its own thread: every core has a worker of its own, and a second thread makes the two take turns
  at the interpreter (a text 454 against 42 microseconds, a small picture 745 against 606, encoding included);
- beside a GPU, which leaves the cores to decoding: texts by one thread, as a tokenizer has threads of its own; what
  `HOLDS_INTERPRETER` by processes, as two threads make no more pictures than one (1,117 against 1,059 microseconds
  each). `--decoders` says how many, beside a CPU too.

A decoder process that dies (a crash in a codec, the kernel short of memory) is replaced, and its items are decoded
again one by one; one that ends a decoder twice is that item's failure.
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
from ..decode import HOLDS_INTERPRETER
from ..encode import Failure
from ..encoders import FrozenEncoder
from ..media import Media
from . import decoder
from .decoding import Part, decode_part
from .journal import NO_KEY

DECODED_TOGETHER, TEXTS_TOGETHER = 8, 256
MOST_DECODERS = 8
STARTED = 3  # templates, before a run gives up
GONE = "The process that decodes could not be started; what it said stands above. --decoders 0 does without."
TRIED = 2  # decoders that an item may end, on its own


class Decoding:
    """Decodes parts of tasks for an encoder, as many at a time as it has threads; leave the with block to stop.

    decoders: how many processes, where the medium is decoded in processes; None for as many as make sense.
    """

    def __init__(self, encoder: FrozenEncoder, decoders: int | None = None) -> None:
        self.encoder = encoder
        self.threads, self.processes = threads_and_processes(encoder, decoders)
        self._stack = ExitStack()
        self._pool: Executor | None = None
        self._family: DecoderFamily | None = None

    @property
    def together(self) -> int:
        """Items of a part: of texts many, as a tokenizer costs more to enter than to run."""
        return TEXTS_TOGETHER if self.encoder.medium == "text" else DECODED_TOGETHER

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


def threads_and_processes(encoder: FrozenEncoder, decoders: int | None) -> tuple[int, bool]:
    """How many threads decode beside the encoder's own, and whether each has a process do it."""
    beside_gpu = encoder.device.type == "cuda"
    if encoder.medium not in HOLDS_INTERPRETER:
        return int(beside_gpu), False
    if decoders is None:
        decoders = min(MOST_DECODERS, len(os.sched_getaffinity(0))) if beside_gpu else 0
    return decoders, decoders > 0


def cannot_travel(encoder: FrozenEncoder, decoders: int | None) -> str:
    """Why threads decode where processes would, as one line; "" where there is nothing to say."""
    if not threads_and_processes(encoder, decoders)[1] or pickled(encoder) is not None:
        return ""
    return f"{encoder.name} cannot be pickled, so that no process can decode for it: threads of the worker do"


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
        self.all: set[socket.socket] = set()
        self._start()

    def __enter__(self) -> DecoderFamily:
        return self

    def __exit__(self, *_: object) -> None:
        # Each ends when its socket does.
        for one in [*self.all]:
            self._end(one)
        self._stop()

    def decode(self, media: Sequence[Media]) -> Part:
        """The items of a part. Raises what decoding them must not go on after."""
        try:
            one = self.free.get_nowait()
        except queue.Empty:
            one = self._fork()
        part = self._asked(one, media)
        if part is None:
            return joined([self._alone(source) for source in media])
        self.free.put(one)
        return part

    def _alone(self, source: Media) -> Part:
        """One item, by decoders that nobody has used: what ends them is the item."""
        for _ in range(TRIED):
            one = self._fork()
            part = self._asked(one, [source])
            self._end(one)
            if part is not None:
                return part
        return Part(
            digests=[source.digest()],
            keys=[NO_KEY],
            failures={0: Failure(f"{source.name}: decoding it ends the process")},
        )

    def _asked(self, one: socket.socket, media: Sequence[Media]) -> Part | None:
        """What a decoder makes of some sources; None where it is no more."""
        try:
            decoder.send(one, pickle.dumps(list(media)))
            answer: Part | Exception = decoder.answered(one)
        except (EOFError, OSError):
            self._end(one)
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _end(self, one: socket.socket) -> None:
        """Let a decoder end, where it has not."""
        with self.lock:
            self.all.discard(one)
        one.close()

    def _fork(self) -> socket.socket:
        """A new decoder, that has said that it is there; where the template is no more, of another."""
        with self.lock:
            for _ in range(STARTED):
                here, there = socket.socketpair()
                try:
                    with there:
                        socket.send_fds(self.control, [b"f"], [there.fileno()])
                    decoder.exactly(here, len(decoder.READY))
                except (EOFError, OSError):
                    here.close()
                    self._stop()
                    self._start()
                else:
                    self.all.add(here)
                    return here
        raise RunFailed(GONE)

    def _start(self) -> None:
        """A template that is ready to fork."""
        for _ in range(STARTED):
            self.control, there = socket.socketpair()
            command = [sys.executable, "-m", decoder.__name__, str(there.fileno())]
            with there:
                self.template = subprocess.Popen(
                    command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, env=environment()
                )
            try:
                decoder.send(self.control, self.encoder)
                decoder.exactly(self.control, len(decoder.READY))
            except (EOFError, OSError):
                self._stop()
            else:
                return
        raise RunFailed(GONE)

    def _stop(self) -> None:
        """Let the template end."""
        self.control.close()
        self.template.wait()


def environment() -> dict[str, str]:
    """A decoder's: one thread, as there is a decoder for every core, and no GPU."""
    few = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **few, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def joined(parts: Sequence[Part]) -> Part:
    """Several parts as one."""
    whole = Part()
    for part in parts:
        start = len(whole.digests)
        whole.places += [start + place for place in part.places]
        whole.failures |= {start + place: why for place, why in part.failures.items()}
        whole.items += part.items
        whole.lengths += part.lengths
        whole.sizes += part.sizes
        whole.digests += part.digests
        whole.keys += part.keys
        whole.read += part.read
        whole.decode += part.decode
    return whole
