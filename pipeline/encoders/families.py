"""Which of our encoders runs a transformers checkpoint, read from its configuration alone.

A rule covers what `AutoModel` gives: pixels make an image encoder (a clip's where the configuration counts frames),
token ids a text encoder, samples with strided convolutions a waveform encoder. `EXCEPTIONS` lists what the rule would
get wrong: checkpoints of several towers, models with a decoder on top, inputs of their own kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers

from ...cache.errors import UserError
from .audio import ClapEncoder, DistilledSpectrogramEncoder, SpectrogramEncoder
from .base import FrozenEncoder
from .text import TextEncoder
from .video import VideoEncoder
from .vision import MaskedAutoencoder, NaFlexEncoder, TimmEncoder, VisionEncoder
from .waveform import WaveformEncoder


@dataclass(frozen=True)
class Family:
    """How a model type is run: for which modality, by which of our encoders, loaded by which transformers class.

    `options` go to `from_pretrained`; `tower` takes the encoder out of a model that has a decoder too.
    """

    modality: str
    encoder: type[FrozenEncoder]
    loader: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tower: bool = False


def _vision(loader: str, encoder: type[FrozenEncoder] = VisionEncoder, **options: Any) -> Family:
    return Family("vision", encoder, loader, options)


# By model type; several where one checkpoint has towers for several modalities.
EXCEPTIONS: dict[str, tuple[Family, ...]] = {
    "t5": (Family("text", TextEncoder, "T5EncoderModel"),),
    "mt5": (Family("text", TextEncoder, "MT5EncoderModel"),),
    "umt5": (Family("text", TextEncoder, "UMT5EncoderModel"),),
    "clip": (_vision("CLIPVisionModel"), Family("text", TextEncoder, "CLIPTextModel")),
    "siglip": (_vision("SiglipVisionModel"), Family("text", TextEncoder, "SiglipTextModel")),
    "siglip2": (_vision("Siglip2VisionModel", NaFlexEncoder), Family("text", TextEncoder, "Siglip2TextModel")),
    "siglip2_vision_model": (_vision("Siglip2VisionModel", NaFlexEncoder),),
    "vit_mae": (_vision("ViTMAEModel", MaskedAutoencoder, mask_ratio=0.0),),
    "timm_wrapper": (_vision("TimmWrapperModel", TimmEncoder),),
    "timesformer": (_vision("TimesformerModel", VideoEncoder),),
    "audio-spectrogram-transformer": (Family("audio", DistilledSpectrogramEncoder, "ASTModel"),),
    "whisper": (Family("audio", SpectrogramEncoder, "WhisperModel", tower=True),),
    "clap": (Family("audio", ClapEncoder, "ClapAudioModel"), Family("text", TextEncoder, "ClapTextModel")),
    "clap_audio_model": (Family("audio", ClapEncoder, "ClapAudioModel"),),
}
# For people, by kind: what the tests run and what the documentation lists. The rule takes more.
KNOWN: dict[str, tuple[str, ...]] = {
    "text": (
        *("T5", "mT5", "BERT", "RoBERTa", "XLM-R", "DistilBERT", "ELECTRA", "DeBERTa", "MPNet", "ModernBERT"),
        *("E5", "GTE", "BGE", "Llama", "Qwen", "CLIP text", "model2vec"),
    ),
    "vision": (
        *("CLIP", "SigLIP", "SigLIP 2", "ViT", "ViT-MAE", "DINOv2", "DINOv3", "Swin", "ConvNeXt", "ResNet"),
        *("MobileNet", "timm", "VideoMAE", "ViViT", "TimeSformer", "V-JEPA 2"),
    ),
    "audio": ("AST", "Whisper", "CLAP", "Wav2Vec2", "HuBERT", "WavLM", "Data2Vec"),
}


def family_of(config: Any, modality: str, source: str) -> Family:
    """The family of a checkpoint for one modality.

    Raises UserError where the checkpoint is of another modality, or of none that fits a rule.
    """
    families = EXCEPTIONS.get(config.model_type) or (_by_rule(config, source),)
    for family in families:
        if family.modality == modality:
            return family
    has = " and ".join(family.modality for family in families)
    raise UserError(f"{source} is a {has} encoder and was asked to encode {modality}.")


def _by_rule(config: Any, source: str) -> Family:
    model = transformers.MODEL_MAPPING.get(type(config), None)
    model = model[0] if isinstance(model, tuple) else model
    takes = getattr(model, "main_input_name", None)
    several = [name for name in ("text_config", "vision_config", "audio_config") if getattr(config, name, None)]
    if model is None or several:
        raise UserError(_unfit(config, source, f"of several parts ({', '.join(several)})" if several else "no encoder"))
    if takes == "input_ids":
        return Family("text", TextEncoder, model.__name__, tower=bool(config.is_encoder_decoder))
    clip = hasattr(config, "num_frames") or hasattr(config, "frames_per_clip")
    if takes == "pixel_values_videos" or (takes == "pixel_values" and clip):
        return _vision(model.__name__, VideoEncoder)
    if takes == "pixel_values" and not config.is_encoder_decoder:
        return _vision(model.__name__)
    if takes == "input_values" and hasattr(config, "conv_kernel") and hasattr(config, "conv_stride"):
        return Family("audio", WaveformEncoder, model.__name__)
    raise UserError(_unfit(config, source, f"a model of {takes}"))


def _unfit(config: Any, source: str, found: str) -> str:
    known = "; ".join(f"{modality}: {', '.join(names)}" for modality, names in KNOWN.items())
    return (
        f"{source} is a {config.model_type!r} model, {found}, and fits no rule by which PgM runs encoders. "
        f"Known to run: {known}. A package of yours can add it: entry point pgm.encoders, see docs/encoders.md."
    )
