"""The layouts that `pgm import` knows, each recognised by what its files hold. One module each; this is their list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from . import crossmodal, csd, mmgcn, mmsa, mosi, mult, per_sample, sensors, wikipedia
from .containers import Opened, described
from .imported import Imported, Options


@dataclass(frozen=True)
class Layout:
    """One way that features were published, and how it is read."""

    name: str
    summary: str
    recognises: Callable[[Sequence[Opened]], bool]
    read: Callable[[Sequence[Opened], Options], Imported]


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("mmsa", "MMSA's aligned_50.pkl and unaligned_50.pkl", mmsa.recognises, mmsa.read),
        Layout("mult", "MulT's front-padded pickles", mult.recognises, mult.read),
        Layout("mmgcn", "MMGCN's tuple of ten for MELD", mmgcn.recognises, mmgcn.read),
        Layout("csd", "CMU-MultimodalSDK sequences, labels and features together", csd.recognises, csd.read),
        Layout("wikipedia", "raw_features.mat with its list files", wikipedia.recognises, wikipedia.read),
        Layout("mosi", "mosi_utterance.npz", mosi.recognises, mosi.read),
        Layout("physionet2012", "physionet2012.npz", sensors.recognises_physionet, sensors.read_physionet),
        Layout("borealtc", "borealtc.npz", sensors.recognises_borealtc, sensors.read_borealtc),
        Layout("hydraulic", "hydraulic.npz", sensors.recognises_hydraulic, sensors.read_hydraulic),
        Layout(
            "extrasensory",
            "extrasensory_*.npz beside cv_5_folds/",
            sensors.recognises_extrasensory,
            sensors.read_extrasensory,
        ),
        Layout("crossmodal", "MRL's .h5 or DSCMR's .mat files", crossmodal.recognises, crossmodal.read),
        Layout(
            "per_sample", "folders of one .npy a sample, with --labels FILE", per_sample.recognises, per_sample.read
        ),
    )
}


def layout_for(files: Sequence[Opened], name: str | None) -> Layout:
    """The layout called `name`, or the one that the files are in.

    Raises NotFound for an unknown name, UserError where the files are not in the layout, or in none.
    """
    if name is not None and name not in LAYOUTS:
        raise NotFound(f"There is no layout {name!r}.{did_you_mean(name, LAYOUTS)} Known: {', '.join(LAYOUTS)}.")
    candidates = LAYOUTS.values() if name is None else [LAYOUTS[name]]
    for layout in candidates:
        if layout.recognises(files):
            return layout
    held = "; ".join(f"{file.path.name} holds {described(file.names)}" for file in files)
    if name is not None:
        raise UserError(f"--layout {name} ({LAYOUTS[name].summary}) does not fit: {held}.")
    raise UserError(
        f"No known layout ({', '.join(LAYOUTS)}) fits: {held}. Say what is what with --modality M --tokens KEY "
        "--labels KEY, and where there are such arrays --split, --ids, --group and --lengths."
    )
