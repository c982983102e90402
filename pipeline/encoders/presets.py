"""Which encoders a dataset gets: a preset for all modalities, `--encoder` for one.

`paper` is the default but for the embedded `digits`, which `tiny` encodes: random weights on real data would give
numbers that nobody means. A modality that a preset does not name gets the encoder that says it encodes it, else
`patch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...cache.errors import UserError
from ...cache.nearest import did_you_mean
from .builders import builder_of, builders
from .spec import TINY, EncoderSpec

if TYPE_CHECKING:
    from ..collection import Collection

MEDIA = ("text", "vision", "audio")


@dataclass(frozen=True)
class Preset:
    """An encoder for each modality."""

    name: str
    summary: str
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """What is known of a checkpoint before it is fetched: width, tokens an item, parameters of the encoder, licence."""

    width: int
    tokens: str
    parameters: int
    licence: str


CLIP = "openai/clip-vit-base-patch32"
AST = "MIT/ast-finetuned-audioset-10-10-0.4593"
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            "the encoders of the PgM paper: T5-base, CLIP ViT-B/32, AST (pretrained; 1.1 GB fetched once)",
            {"text": "google-t5/t5-base", "vision": CLIP, "audio": AST},
        ),
        Preset(
            "clip",
            "both towers of CLIP ViT-B/32, whose texts and images were trained together; AST for sound",
            {"text": CLIP, "vision": CLIP, "audio": AST},
        ),
        Preset(TINY, "random weights, no download: for trying the pipeline out", dict.fromkeys(MEDIA, TINY)),
    )
}
PUBLISHED = {
    ("google-t5/t5-base", "text"): Published(768, "up to 512", 109_628_544, "Apache-2.0"),
    (CLIP, "vision"): Published(768, "50", 87_456_000, "MIT (OpenAI's code; the model card states none)"),
    (CLIP, "text"): Published(512, "up to 77", 63_165_952, "MIT (OpenAI's code; the model card states none)"),
    (AST, "audio"): Published(768, "1,214", 86_187_264, "BSD-3-Clause"),
}
DEFAULTS = {"digits": TINY}
DEFAULT = "paper"


def default_preset(dataset: str) -> str:
    """The preset a dataset gets where none is asked for."""
    return DEFAULTS.get(dataset, DEFAULT)


def source_of(preset: str, modality: str) -> str:
    """The encoder a preset, or a builder by its name, gives a modality.

    Raises UserError for an unknown name, with the nearest known one.
    """
    if preset in PRESETS:
        known = PRESETS[preset].sources
        return known[modality] if modality in known else _of_its_own(modality)
    if (builder := builder_of(preset)) is None:
        names = [*PRESETS, *(name for name in builders() if name not in PRESETS)]
        raise UserError(
            f"--encoders {preset} is not known.{did_you_mean(preset, names)} Known: {', '.join(names)}. One encoder "
            f"for one modality is --encoder {modality}={preset}."
        )
    return preset if not builder.modalities or modality in builder.modalities else _of_its_own(modality)


def _of_its_own(modality: str) -> str:
    claiming = [builder.name for builder in builders().values() if modality in builder.modalities]
    if modality in MEDIA:
        return PRESETS[DEFAULT].sources[modality]
    return claiming[0] if claiming else "patch"


def specs_for(
    collection: Collection, given: Mapping[str, EncoderSpec], preset: str | None = None
) -> dict[str, EncoderSpec]:
    """One spec a modality: the given one or the preset's, with what must be known of the data filled in."""
    preset = preset or default_preset(collection.card.name)
    return {
        modality: settled(given.get(modality) or EncoderSpec(modality, source_of(preset, modality)), collection)
        for modality in collection.media
    }


def settled(spec: EncoderSpec, collection: Collection) -> EncoderSpec:
    """`spec` with what its builder takes from the data, such as the number of channels of a series."""
    builder = builder_of(spec.source)
    if builder is None or builder.settle is None:
        return spec
    return builder.settle(spec, collection.media[spec.modality])
