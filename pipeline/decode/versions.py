"""The version of our decoding, which is part of a store's identity, and those of the libraries beneath, which are not.

Two releases of a library may round a pixel differently; naming stores by them would make every store anew at each
upgrade. They are recorded beside the store instead, so that a difference can be told.
"""

from __future__ import annotations

from collections.abc import Mapping

import av
import numpy as np
import PIL
import scipy
import soundfile
from PIL import features

# Raise a modality's number when any bytes it accepted before may decode to other numbers: another conversion,
# resampling or choice of frames, another rule of scaling. Refusing more, or less, needs no new number.
DECODE_VERSION: Mapping[str, int] = {"text": 1, "vision": 3, "audio": 1, "series": 1}


def library_versions() -> dict[str, str]:
    """Name -> version of each library that decodes or resamples in this process."""
    jpeg = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    found = {
        "pillow": PIL.__version__,
        jpeg: features.version_feature("libjpeg_turbo") or features.version_codec("jpg"),
        "libwebp": features.version_module("webp"),
        "pyav": av.__version__,
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    ffmpeg = {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    return {name: str(version) for name, version in {**found, **ffmpeg}.items() if version}
