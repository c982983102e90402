"""From an `EncoderSpec` to a frozen encoder: one that is code (`tiny`, `patch`, another package's), or a checkpoint.

A checkpoint's kind is read from its configuration. No remote code is ever run. A hub id's commit is resolved once, so
that every worker loads the same files. transformers' parts are asked for where they are used: those that models need
take three seconds to import, which an encoder that is code does without.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import transformers

from ...cache.errors import NotFound, UserError
from .audio import SpectrogramEncoder
from .base import FrozenEncoder
from .builders import builder_of
from .checkpoint import Checkpoint, bring, locate
from .families import Family, family_of
from .sentence import default_prompt, longest, sentence_rule
from .spec import EncoderSpec
from .static import build_static, check_text, is_static
from .text import TextEncoder
from .video import VideoEncoder
from .vision import PixelEncoder
from .waveform import WaveformEncoder

# Parts of a model that its hidden states do not pass through.
UNUSED = ("pooler", "mask_token", "masked_spec_embed", "head", "heads", "predictor", "visual_projection")
PROCESSORS = {"text": "AutoTokenizer", "vision": "AutoImageProcessor", "audio": "AutoFeatureExtractor"}
# Which package brings a library that some checkpoints need.
EXTRAS = {"timm": "pgm[timm]", "torchvision": "pgm[vision]"}


def build_encoder(spec: EncoderSpec) -> FrozenEncoder:
    """The encoder `spec` asks for, loaded on its device, in evaluation mode.

    Raises NotFound where the checkpoint cannot be had and UserError where it is of another modality, fits no rule, or
    needs a library that is not installed.
    """
    if builder := builder_of(spec.source):
        return builder.build_for(spec)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    checkpoint = locate(spec.source, spec.revision)
    if is_static(checkpoint):
        return build_static(spec, checkpoint)
    try:
        config = _config(checkpoint)
        family = family_of(config, spec.modality, spec.source)
        processor = _processor(checkpoint, family)
        model = _model(checkpoint, family, config)
    except ImportError as error:
        raise UserError(_lacking(checkpoint, error)) from error
    return _wrapped(replace(spec, revision=checkpoint.revision or spec.revision), checkpoint, family, model, processor)


def fetch_encoders(specs: Iterable[EncoderSpec]) -> None:
    """Fetch what is not on this machine, and see that each encodes its modality, before any of the work begins.

    Raises as `build_encoder` does; where the hub cannot be reached, naming all that are lacking.
    """
    specs = list(specs)
    bring((spec.source, spec.revision) for spec in specs if builder_of(spec.source) is None)
    for spec in specs:
        if builder := builder_of(spec.source):
            builder.check(spec.modality)
            continue
        checkpoint = locate(spec.source, spec.revision)
        if is_static(checkpoint):
            check_text(spec)
        else:
            family_of(_config(checkpoint), spec.modality, spec.source)


def _wrapped(spec: EncoderSpec, checkpoint: Checkpoint, family: Family, model: Any, processor: Any) -> FrozenEncoder:
    common: dict[str, Any] = {"name": checkpoint.name, "revision": checkpoint.revision, "random": False}
    if issubclass(family.encoder, TextEncoder):
        rule = sentence_rule(checkpoint) if spec.pooling == "sentence" else None
        prompt = default_prompt(checkpoint) if spec.prompt is None else spec.prompt
        return family.encoder(
            spec, model, tokenizer=processor, sentence=rule, limit=longest(checkpoint), prompt=prompt, **common
        )
    if spec.prompt:
        raise UserError(f"--prompt stands before texts, and {spec.source} encodes {spec.modality}.")
    named = "extractor" if issubclass(family.encoder, SpectrogramEncoder | WaveformEncoder) else "processor"
    return family.encoder(spec, model, **{named: processor}, **common)


def _model(checkpoint: Checkpoint, family: Family, config: Any) -> Any:
    """The checkpoint's encoder in float32. Weights it lacks and a frozen encoder does not use are zero; transformers
    draws them at random, and each loading would be another encoder."""
    loader = getattr(transformers, family.loader)
    options = dict(family.options)
    if "add_pooling_layer" in inspect.signature(loader.__init__).parameters:
        options["add_pooling_layer"] = False
    if config.model_type == "timm_wrapper":
        # timm records it since 1.0.30, and transformers' wrapper gives its own.
        (config.model_args or {}).pop("num_classes", None)
        options["config"] = config
    try:
        model, info = loader.from_pretrained(
            checkpoint.folder, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
        )
    except (OSError, ValueError) as error:
        raise NotFound(f"The weights of {checkpoint.name} could not be loaded: {_first_line(error)}") from error
    tower = model.get_encoder() if family.tower else model
    held = model.state_dict(keep_vars=True)
    ours = {id(tensor) for tensor in tower.state_dict(keep_vars=True).values()}
    lacking = sorted(name for name in info["missing_keys"] if id(held[name]) in ours)
    if used := [name for name in lacking if not any(part in UNUSED for part in name.split("."))]:
        raise UserError(
            f"{checkpoint.name} lacks weights that {type(model).__name__} computes with: {', '.join(used[:3])}"
            f"{f' and {len(used) - 3} more' if len(used) > 3 else ''}. It is not a whole checkpoint of this model."
        )
    with torch.no_grad():
        for name in lacking:
            held[name].zero_()
    return tower


def _config(checkpoint: Checkpoint) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise NotFound(
            f"No encoder could be loaded from the folder of {checkpoint.name!r}: {_first_line(error)}\n"
            "Give a hub id (google-t5/t5-base), a folder written by save_pretrained, or tiny."
        ) from error


def _processor(checkpoint: Checkpoint, family: Family) -> Any:
    auto: Any = getattr(transformers, PROCESSORS[family.modality])
    # Pillow's resampling is deterministic across machines; where a processor has no such backend, it is torchvision's.
    options = {"backend": "pil"} if issubclass(family.encoder, PixelEncoder) else {}
    if family.encoder is VideoEncoder and not (checkpoint.folder / "preprocessor_config.json").is_file():
        auto, options = transformers.AutoVideoProcessor, {}
    try:
        return auto.from_pretrained(checkpoint.folder, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        if "torchvision" in str(error):
            raise UserError(_lacking(checkpoint, error)) from error
        raise NotFound(
            f"{checkpoint.name} has weights, but its {auto.__name__.removeprefix('Auto').lower()} could not be loaded: "
            f"{_first_line(error)}"
        ) from error


def _lacking(checkpoint: Checkpoint, error: BaseException) -> str:
    library = next((name for name in EXTRAS if name in str(error).lower()), None)
    if library is None:
        return f"{checkpoint.name} needs a library that is not installed: {_first_line(error)}"
    return f"{checkpoint.name} needs {library}, which is not installed: pip install '{EXTRAS[library]}'"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
