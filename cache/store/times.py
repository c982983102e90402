"""When in a clip each token of a video encoder lies: computed from a store's identity, which says how it was made.

An encoder of clips takes T * s frames at the middles of equal parts of a clip's time and makes of every s of them one
layer of H x W tokens: layer t tells of the t-th of T equal parts. What decides that, `grid` (T, H, W), names the store;
nothing has to be kept a token. The clip's length is the reader's to say: a store holds no media.
"""

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .features import Features


def token_times(features: Features, row: int, seconds: float = 1.0) -> npt.NDArray[np.float64]:
    """(S,) the middle of the time that each token of sample `row` tells of, in a clip of `seconds`; as a share of the
    clip unless told its length. NaN for a CLS token, which is of all of it.

    Raises UserError for features that are no clip's tubelets, or were pooled: their tokens lie at no one time.
    """
    fields = features.identity.fields
    grid, pooling = fields.get("grid"), fields.get("pooling", "none")
    if grid is None or pooling != "none":
        why = "are not tubelets of a clip" if grid is None else f"were pooled ({pooling})"
        raise UserError(
            f"Tokens of {features.identity.folder} {why}: they have no times. Extract with an encoder of "
            "clips, such as VideoMAE, and --pool none."
        )
    length = int(features.lengths[row])
    if not length:
        return np.zeros(0)
    layers, height, width = grid
    middles = np.repeat((np.arange(layers) + 0.5) / layers * seconds, height * width)
    return np.concatenate([np.full(length - len(middles), np.nan), middles])
