"""Bytes to text. UTF-8 first (with or without a byte-order mark), UTF-16 where its mark stands, then the declared
fallback.

The fallback is cp1252 (what most old corpora call "ASCII"), and latin-1 for the five bytes cp1252 leaves undefined, so
that every file gives a text. Tested on each; empty text is a text.
"""

from __future__ import annotations

import codecs

ENCODINGS = ("utf-8-sig", "utf-16 with a mark", "cp1252", "latin-1")


def decode_text(data: bytes) -> str:
    """The text, without a byte-order mark; lone surrogates become the replacement character."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    # The "utf-8-sig" codec is pure Python and takes longer than a tokenizer.
    data = data.removeprefix(codecs.BOM_UTF8)
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
