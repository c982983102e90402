"""What can be said of an encoder: where it lies, its width, tokens an item, parameters, licence, and its rate here.

An encoder that is on this machine is built and asked; of one that is not, `PUBLISHED` says what is known. The rate is
measured on items made up for it: a paragraph, a photograph-sized picture, five seconds of sound.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from ...cache.errors import NotFound, UserError
from ..media import LoadedFile, Media, TextMedia
from .base import FrozenEncoder
from .build import build_encoder
from .builders import builder_of, builders
from .checkpoint import cached
from .presets import MEDIA, PRESETS, PUBLISHED, source_of
from .series import SeriesEncoder
from .spec import EncoderSpec


@dataclass(frozen=True)
class Facts:
    """One encoder of one modality; numbers are None where only fetching it would tell. `where` is its folder, "" where
    it is not on this machine, None where it needs no file."""

    modality: str
    source: str
    where: str | None
    width: int | None
    tokens: str | None
    parameters: int | None
    licence: str
    random_weights: bool = False


def named(name: str, modality: str | None) -> dict[str, str]:
    """Modality -> source of what NAME stands for: a preset, a builder, or a checkpoint for one modality or whichever
    fits. Raises UserError where it fits none."""
    builder = builder_of(name)
    if name in PRESETS:
        return {m: source for m, source in PRESETS[name].sources.items() if modality in (None, m)}
    if builder is not None:
        return {m: name for m in (builder.modalities or ("series",)) if modality in (None, m)}
    published = [m for source, m in PUBLISHED if source == name]
    return dict.fromkeys([modality] if modality else published or fitting(name), name)


def fitting(source: str) -> list[str]:
    """The modalities a checkpoint on this machine, or fetched now, encodes. Raises UserError where it is none."""
    found, reason = [], ""
    for modality in MEDIA:
        try:
            build_encoder(EncoderSpec(modality, source, device="cpu"))
        except NotFound:
            raise
        except UserError as error:
            if "cannot be reached" in str(error):
                raise
            reason = str(error)
        else:
            found.append(modality)
    if not found:
        raise UserError(reason)
    return found


def facts(modality: str, source: str) -> Facts:
    """What is known of an encoder without fetching anything."""
    known = PUBLISHED.get((source, modality))
    folder = location(source)
    if folder == "":
        width, tokens, parameters = (known.width, known.tokens, known.parameters) if known else (None, None, None)
        return Facts(modality, source, "", width, tokens, parameters, known.licence if known else "see its page")
    if builder_of(source) and modality not in MEDIA:
        return Facts(modality, source, None, None, "one a window", 0, "the project's")
    encoder = build_encoder(EncoderSpec(modality, source, device="cpu"))
    return Facts(
        modality,
        source,
        folder,
        encoder.dim,
        f"up to {encoder.max_tokens:,}" if hasattr(encoder, "max_tokens") else f"{tokens_of(encoder):,}",
        sum(tensor.numel() for tensor in encoder.model.parameters()),
        known.licence if known else licence(folder),
        encoder.random_weights,
    )


def location(source: str) -> str | None:
    """The folder an encoder's files are in; "" where they are not on this machine, None where there are none."""
    if builder_of(source):
        return None
    if Path(source).expanduser().is_dir():
        return str(Path(source).expanduser().resolve())
    found = cached(source)
    return str(found.folder) if found else ""


def licence_of(source: str, modality: str) -> str:
    """The licence of an encoder's weights, as far as it is known without fetching anything."""
    known, folder = PUBLISHED.get((source, modality)), location(source)
    return known.licence if known else "see its page" if folder == "" else licence(folder)


def licence(folder: str | None) -> str:
    """As the checkpoint's own card states it."""
    if folder is None:
        return "the project's"
    card = Path(folder) / "README.md"
    if card.is_file() and (stated := re.search(r"^license:\s*(\S+)", card.read_text(errors="replace"), re.MULTILINE)):
        return stated[1]
    return "LICENSE in its folder" if (Path(folder) / "LICENSE").is_file() else "not stated"


def tokens_of(encoder: FrozenEncoder) -> int:
    """Tokens of a made-up item."""
    [length] = encoder.lengths([encoder.decode(made_up(encoder))])
    return encoder.pooled_length(length)


def made_up(encoder: FrozenEncoder) -> Media:
    """An item of the size that is usual for the encoder's medium."""
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    match encoder.medium:
        case "text":
            return TextMedia("A frozen encoder reads this paragraph once, and its features are kept. " * 4)
        case "vision":
            pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        case "audio":
            soundfile.write(buffer, 0.1 * rng.normal(size=80_000), 16_000, format="WAV")
        case "series" if isinstance(encoder, SeriesEncoder):
            np.save(buffer, rng.normal(size=(3_000, encoder.patch.channels)))
        case medium:
            raise UserError(f"{encoder.name}: no item can be made up to measure {medium or 'this encoder'} with.")
    return LoadedFile("made up", data=buffer.getvalue())


def listing() -> dict[str, Any]:
    """What `pgm encoders ls` prints: presets, encoders by name, families of checkpoints."""
    from .families import KNOWN

    presets: dict[str, Mapping[str, str]] = {
        name: {"summary": preset.summary, **{m: source_of(name, m) for m in MEDIA}} for name, preset in PRESETS.items()
    }
    own = {
        name: {"summary": builder.summary, "modalities": list(builder.modalities)}
        for name, builder in builders().items()
    }
    return {"presets": presets, "encoders": own, "families": {m: list(names) for m, names in KNOWN.items()}}
