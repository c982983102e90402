"""Raw bytes to arrays: one file a medium. A medium that cannot be decoded raises DecodeError with the reason."""

from .audio import decode_audio
from .errors import DecodeError, readable
from .image import decode_image
from .series import decode_series
from .text import decode_text
from .versions import DECODE_VERSION, library_versions
from .video import decode_frames

# Media that Pillow and the processors of transformers decode: they hold Python's interpreter, and only processes scale.
HOLDS_INTERPRETER = frozenset({"vision", "audio"})

__all__ = [
    "DECODE_VERSION",
    "HOLDS_INTERPRETER",
    "DecodeError",
    "decode_audio",
    "decode_frames",
    "decode_image",
    "decode_series",
    "decode_text",
    "library_versions",
    "readable",
]
