"""From an `EncoderSpec` to a frozen encoder: the `tiny` preset, a hub id, or a local folder.

The model family is read from the checkpoint's config; a family this file does not list is refused by name. No remote
code is ever run. A hub id's commit is resolved once and recorded, so that every worker loads the same revision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ...cache.errors import NotFound, UserError
from .audio import SpectrogramEncoder
from .base import FrozenEncoder
from .spec import TINY, EncoderSpec
from .text import TextEncoder
from .tiny import TINY as TINY_MODELS
from .vision import VisionEncoder
from .waveform import WaveformEncoder


@dataclass(frozen=True)
class Family:
    """A transformers model type: its modality, which of our encoder kinds runs it, and the class that loads its
    encoder."""

    modality: str
    kind: str
    loader: str
    options: tuple[tuple[str, Any], ...] = ()


_TEXT = {
    model_type: Family("text", "bert", "AutoModel")
    for model_type in ("bert", "roberta", "xlm-roberta", "distilbert", "electra", "camembert", "deberta-v2", "mpnet")
}
# Parts of a model that its hidden states do not pass through.
UNUSED = ("pooler", "mask_token", "masked_spec_embed", "head", "heads")
_UNPOOLED = (("add_pooling_layer", False),)
FAMILIES: dict[str, Family] = {
    "t5": Family("text", "t5", "T5EncoderModel"),
    "mt5": Family("text", "t5", "MT5EncoderModel"),
    "umt5": Family("text", "t5", "UMT5EncoderModel"),
    **_TEXT,
    "clip": Family("vision", "cls", "CLIPVisionModel"),
    "clip_vision_model": Family("vision", "cls", "CLIPVisionModel"),
    "siglip": Family("vision", "patches", "SiglipVisionModel"),
    "siglip_vision_model": Family("vision", "patches", "SiglipVisionModel"),
    "vit": Family("vision", "cls", "ViTModel", _UNPOOLED),
    "dinov2": Family("vision", "cls", "Dinov2Model"),
    "audio-spectrogram-transformer": Family("audio", "spectrogram", "ASTModel"),
    "whisper": Family("audio", "whisper", "WhisperModel"),
    "wav2vec2": Family("audio", "waveform", "Wav2Vec2Model"),
    "hubert": Family("audio", "waveform", "HubertModel"),
}


def build_encoder(spec: EncoderSpec) -> FrozenEncoder:
    """The encoder `spec` asks for, loaded on its device, in evaluation mode.

    Raises NotFound where the checkpoint cannot be had and UserError where it is of another modality or an unknown
    family.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if spec.source == TINY:
        return _tiny(spec)
    config = _config(spec)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UserError(
            f"{spec.source} is a {config.model_type!r} model; PgM runs these families: {', '.join(FAMILIES)}."
        )
    if family.modality != spec.modality:
        raise UserError(f"{spec.source} is a {family.modality} encoder and was asked to encode {spec.modality}.")
    revision = getattr(config, "_commit_hash", None)
    # From here on the commit, not a branch that may move.
    pinned = {"revision": revision} if revision else {}
    model = _loaded(spec, getattr(transformers, family.loader), {**pinned, **dict(family.options)})
    model = model.get_encoder() if family.kind == "whisper" else model
    processor = _processor(spec, family, pinned)
    return _wrap(spec, family.kind, model, processor, _display_name(spec.source), revision, random=False)


def _loaded(spec: EncoderSpec, loader: Any, options: dict[str, Any]) -> Any:
    """The checkpoint's model in float32. Weights it lacks and a frozen encoder does not use are zero; transformers
    draws them at random, and each loading would be another encoder."""
    try:
        model, info = loader.from_pretrained(
            spec.source, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
        )
    except (OSError, ValueError) as error:
        raise NotFound(f"The weights of {spec.source} could not be loaded: {_first_line(error)}") from error
    lacking = sorted(info["missing_keys"])
    if used := [name for name in lacking if not any(part in UNUSED for part in name.split("."))]:
        raise UserError(
            f"{spec.source} lacks weights that {type(model).__name__} computes with: {', '.join(used[:3])}"
            f"{f' and {len(used) - 3} more' if len(used) > 3 else ''}. It is not a whole checkpoint of this model."
        )
    with torch.no_grad():
        for name in lacking:
            model.get_parameter(name).zero_()
    return model


def _tiny(spec: EncoderSpec) -> FrozenEncoder:
    if spec.modality not in TINY_MODELS:
        raise UserError(f"The tiny preset has encoders for {', '.join(TINY_MODELS)}, not for {spec.modality!r}.")
    name, build = TINY_MODELS[spec.modality]
    model, processor = build()
    kind = {"text": "t5", "vision": "cls", "audio": "spectrogram"}[spec.modality]
    return _wrap(spec, kind, model, processor, name, None, random=True)


def _wrap(
    spec: EncoderSpec, kind: str, model: Any, processor: Any, name: str, revision: str | None, *, random: bool
) -> FrozenEncoder:
    wrappers: dict[str, Callable[..., FrozenEncoder]] = {
        "t5": lambda *a: TextEncoder(*a, tokenizer=processor, family="t5"),
        "bert": lambda *a: TextEncoder(*a, tokenizer=processor, family="bert"),
        "cls": lambda *a: VisionEncoder(*a, processor=processor, has_cls=True),
        "patches": lambda *a: VisionEncoder(*a, processor=processor, has_cls=False),
        "spectrogram": lambda *a: SpectrogramEncoder(*a, extractor=processor, has_cls=True),
        "whisper": lambda *a: SpectrogramEncoder(*a, extractor=processor, has_cls=False),
        "waveform": lambda *a: WaveformEncoder(*a, extractor=processor),
    }
    return wrappers[kind](spec, model, name, revision, random)


def _config(spec: EncoderSpec) -> Any:
    try:
        return AutoConfig.from_pretrained(spec.source, revision=spec.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        where = "folder" if Path(spec.source).exists() else "hub id or folder"
        raise NotFound(
            f"No encoder could be loaded from the {where} {spec.source!r}: {_first_line(error)}\n"
            "Give a hub id (google-t5/t5-base), a folder written by save_pretrained, or tiny."
        ) from error


def _processor(spec: EncoderSpec, family: Family, pinned: dict[str, Any]) -> Any:
    auto = {"text": AutoTokenizer, "vision": AutoImageProcessor, "audio": AutoFeatureExtractor}[family.modality]
    # Pillow's resampling is deterministic across machines; the torchvision backend is chosen only where it is
    # installed.
    options = {"backend": "pil"} if family.modality == "vision" else {}
    try:
        return auto.from_pretrained(spec.source, trust_remote_code=False, **pinned, **options)
    except (OSError, ValueError) as error:
        raise NotFound(
            f"{spec.source} has weights, but its {auto.__name__.removeprefix('Auto').lower()} could not be loaded: "
            f"{_first_line(error)}"
        ) from error


def _display_name(source: str) -> str:
    """A hub id as it is; of a folder its last component, as paths have no place in an identity."""
    path = Path(source)
    return path.resolve().name if path.exists() else source


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
