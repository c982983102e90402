"""mosi_utterance.npz: one vector an utterance of CMU-MOSI, from the bc-LSTM release, with two splits.

    ids, video_id (2199,), text (2199, 100), audio (2199, 73), video (2199, 100), label_sentiment in [-3, 3],
    label_binary, split_bclstm (1447/752), split_standard (1284/229/686)

The text and video vectors were fitted with labels on the training videos of split_bclstm. Under split_standard some of
those videos are test videos, and a classifier then reads the labels back (.93 accuracy where .76 is honest).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...cache.errors import NotFound
from .arrays import text_of
from .containers import Opened, array_of
from .files import value_of
from .imported import Imported, Options, PackedTokens
from .padding import frames_of, pack

KEYS = {"text": "text", "audio": "audio", "vision": "video"}
DEFAULT_SPLIT, LEAKING = "split_bclstm", "split_standard"
LEAK = (
    "split_standard leaks labels: the text and video features were fitted with labels on the bc-LSTM training videos, "
    "and some of those are test videos here. Scores are far too high (.93 where .76 is honest); use split_bclstm."
)
FITTED = (
    "The text and video features were fitted with labels on the training videos: a validation split carved from them "
    "scores near 1 and says little about which epoch to choose."
)


def recognises(files: Sequence[Opened]) -> bool:
    """Whether the one file is mosi_utterance.npz."""
    return len(files) == 1 and files[0].kind == "npz" and {"label_sentiment", "video_id", "video"} <= {*files[0].names}


def read(files: Sequence[Opened], options: Options) -> Imported:
    """The utterances under one split; with --task classification negative against positive."""
    file = files[0]
    column = options.split_column or DEFAULT_SPLIT

    def read_key(key: str) -> np.ndarray:
        return array_of(value_of(file.names, key, file.path), key, file.path)

    modalities = {}
    for name in options.modalities or KEYS:
        if name not in KEYS:
            raise NotFound(f"{file.path.name} has no modality {name!r}; it has {', '.join(KEYS)}.")
        array = frames_of(read_key(KEYS[name]))
        lengths = np.full(len(array), array.shape[1], np.int64)
        modalities[name] = PackedTokens(pack([array], [lengths]), lengths, file.source(KEYS[name]))
    binary = options.task in ("classification", "emotion")
    return Imported(
        modalities,
        read_key("label_binary" if binary else "label_sentiment"),
        [text_of(one) for one in read_key("ids").tolist()],
        [text_of(one) for one in read_key(column).tolist()],
        [text_of(one) for one in read_key("video_id").tolist()],
        options.task or "sentiment",
        ("negative", "positive") if binary else None,
        (FITTED,) if column == DEFAULT_SPLIT else (),
        (LEAK,) if column == LEAKING else (),
    )
