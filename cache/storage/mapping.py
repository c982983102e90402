"""Files as read-only memory, without keeping them open, and many files in one range of addresses.

Python's mmap holds a file descriptor for as long as it lives (before 3.13), and a store of a thousand segments would
meet the usual limit of 1024. So Python reserves the addresses, and unmaps them when the last array over them is gone;
the C library puts the file there.

Files begin at a multiple of 2 MiB. Linux then maps the page cache's large folios with one entry of the page table each,
and a shuffled epoch runs at the speed of memory instead of half of it (measured: 0.6 -> 1.0 of numpy in RAM).
"""

import ctypes
import mmap
import os
import weakref
from math import gcd, lcm
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# The same number on Linux and macOS; Python's mmap does not name it.
MAP_FIXED = 0x10
LARGE_PAGE = 2 << 20
SPARSE = 1 << 30  # addresses a file may be moved by to fit the rows of others
FAILED = ctypes.c_void_p(-1).value
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[Any]


def map_file(path: Path) -> Bytes:
    """The bytes of a file as a read-only array (B,) backed by the page cache. Raises FileNotFoundError."""
    size = path.stat().st_size
    if not size:
        return np.empty(0, np.uint8)
    spare = LARGE_PAGE if size >= LARGE_PAGE else 0
    array = np.frombuffer(reserve(size + spare), np.uint8)
    first = -array.ctypes.data % LARGE_PAGE if spare else 0
    array = array[first : first + size]
    map_at(array.ctypes.data, size, path)
    return array


def reserve(size: int) -> mmap.mmap:
    """Addresses without memory behind them, given back with the last array over them. Raises OSError."""
    return mmap.mmap(-1, size, flags=ANONYMOUS, prot=0)


def map_at(address: int, size: int, path: Path | None) -> None:
    """Put a file, or nothing but zeros, where addresses were reserved."""
    descriptor = os.open(path, os.O_RDONLY) if path else -1
    try:
        flags = MAP_FIXED | (mmap.MAP_SHARED if path else ANONYMOUS)
        if _libc.mmap(address, size, mmap.PROT_READ, flags, descriptor, 0) == FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        if path:
            os.close(descriptor)


class RowSpace:
    """One range of addresses for the rows of many files, numbered from its beginning: row 0 is zeros.

    Rows of any of them are then one array, `rows` (R, width), that `np.take` copies from in one call. Where no file
    lies, nothing may be read. A file is unmapped when the last array over it is gone, its addresses are not used again.
    """

    def __init__(self, size: int, dtype: np.dtype[Any], width: int) -> None:
        self.row_bytes = dtype.itemsize * width
        size = max(size, 4 * LARGE_PAGE + self.row_bytes)
        self._reserved = reserve(size)
        everything = np.frombuffer(self._reserved, np.uint8)
        self._base = everything.ctypes.data
        self._first = -self._base % mmap.PAGESIZE
        self._used = self._first + -(-self.row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        map_at(self._base + self._first, self._used - self._first, None)
        count = (size - self._first) // self.row_bytes
        self.rows = np.frombuffer(self._reserved, dtype, count=count * width, offset=self._first).reshape(count, width)

    def numbers(self, offset: int) -> bool:
        """Whether rows that begin at byte `offset` of a file can be numbered with those of others."""
        return offset % gcd(mmap.PAGESIZE, self.row_bytes) == 0

    def map(self, path: Path, offset: int, count: int) -> tuple[Rows, int] | None:
        """`count` rows of a file from byte `offset` on, read-only, and the number of the first; None without room.

        Raises FileNotFoundError.
        """
        size = path.stat().st_size
        place = self._place(size, offset)
        if place + size + mmap.PAGESIZE > len(self._reserved):
            return None
        self._used = place + -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        map_at(self._base + place, size, path)
        # An array whose base is no array: it is what every view of it keeps, and what tells when the last is gone.
        content = np.frombuffer(memoryview(self._reserved)[place : place + size], np.uint8)
        weakref.finalize(content, _unmap, self._reserved, self._base + place, size).atexit = False
        rows = content[offset : offset + count * self.row_bytes].view(self.rows.dtype)
        return rows.reshape(count, -1), (place + offset - self._first) // self.row_bytes

    def ahead(self, begin: int, end: int) -> None:
        """Have the kernel read the rows of these numbers, which lie in one file, without waiting for the disk."""
        start = (self._first + begin * self.row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        self._reserved.madvise(mmap.MADV_WILLNEED, start, self._first + end * self.row_bytes - start)

    def _place(self, size: int, offset: int) -> int:
        """Where to put a file so that byte `offset` of it begins a row."""
        page = LARGE_PAGE if size >= LARGE_PAGE and lcm(LARGE_PAGE, self.row_bytes) <= SPARSE else mmap.PAGESIZE
        if offset % gcd(page, self.row_bytes):
            page = mmap.PAGESIZE
        # begin + steps * page is a multiple of the page as an address, and (it + offset - first) % row_bytes == 0.
        begin = self._used + -(self._base + self._used) % page
        common, lacking = gcd(page, self.row_bytes), -(begin + offset - self._first) % self.row_bytes
        period = self.row_bytes // common
        return begin + lacking // common * pow(page // common, -1, period) % period * page


def address_space(rows: int, files: int, row_bytes: int) -> int:
    """Bytes of addresses to reserve for so many rows in so many files."""
    step = lcm(LARGE_PAGE, row_bytes)
    moved = step if step <= SPARSE else lcm(mmap.PAGESIZE, row_bytes)
    return rows * row_bytes * 9 // 8 + (files + 4) * (moved + LARGE_PAGE)


def _unmap(reserved: mmap.mmap, address: int, size: int) -> None:
    """The addresses stay reserved; `reserved` is kept until then."""
    _libc.mmap(address, size, 0, MAP_FIXED | ANONYMOUS, -1, 0)
