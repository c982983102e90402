"""`pgm` in a process that the kernel kills as soon as any of its threads asks for a network socket or starts a program.

What FFmpeg or Pillow do in C is seen too, which Python's audit hooks would not. Linux on x86-64 only.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import subprocess
import sys

ALLOW, KILL = 0x7FFF0000, 0x80000000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
SOCKET, PROGRAMS = 41, (57, 58, 59, 322)  # fork, vfork, execve, execveat
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2
# Offsets into struct seccomp_data: the call's number, and its first argument.
NUMBER, FIRST = 0, 16


def seal() -> None:
    """From here on: any socket but a local one, and any program, ends this process with SIGSYS."""
    jumps = [(EQUAL, 2 + len(PROGRAMS) - place, 0, number) for place, number in enumerate(PROGRAMS)]
    steps = [
        (LOAD, 0, 0, NUMBER),
        *jumps,
        (EQUAL, 0, 3, SOCKET),
        (LOAD, 0, 0, FIRST),
        (EQUAL, 1, 0, socket.AF_UNIX),
        (RETURN, 0, 0, KILL),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, program, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), f"prctl{arguments[:2]}")


def extract() -> None:
    """`pgm` with this process's arguments, sealed."""
    # Imports look for libraries by programs of their own (ldconfig, uname): they come before the seal.
    import scipy.signal  # noqa: F401
    from pgm.cli import main
    from pgm.pipeline import EncoderSpec, extraction  # noqa: F401
    from pgm.pipeline.encoders import build_encoder

    for modality in ("text", "vision", "audio"):
        build_encoder(EncoderSpec(modality))
    seal()
    main()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["open a socket"]:
            seal()
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        case ["start a program"]:
            seal()
            subprocess.run(["true"])
        case _:
            extract()
