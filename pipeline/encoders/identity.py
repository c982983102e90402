"""What of an encoder decides its numbers: weights, configuration, processor; and which libraries ran it.

All of a model's configuration counts but what is listed in `BOOKKEEPING`: a new setting of transformers then makes a
new store, where the other choice, a list of what counts, would one day give two different encoders one name. Versions
of libraries name nothing, as every upgrade would then encode every dataset anew: they are recorded beside a store, and
a difference is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import safetensors
import tokenizers
import torch
import transformers
import xxhash
from torch import nn

from ...cache.errors import RunFailed
from ...cache.store.identity import field_differences
from .. import decode

if TYPE_CHECKING:
    from .base import FrozenEncoder

BOOKKEEPING = frozenset(
    {
        # Who wrote the checkpoint, with what, and from where.
        *("transformers_version", "_name_or_path", "_commit_hash", "architectures", "auto_map", "tokenizer_class"),
        *("image_processor_type", "feature_extractor_type", "processor_class", "video_processor_type"),
        # The type the weights were saved in: the weights are digested, and the type they run in is a field of its own.
        *("dtype", "torch_dtype"),
        # A classifier's, which no encoder runs.
        *("id2label", "label2id", "num_labels", "problem_type", "task_specific_params"),
        # What a call returns or keeps, not what it computes.
        *("output_hidden_states", "output_attentions", "return_dict", "use_cache", "return_tensors", "device"),
        # How weights that are there now were once drawn.
        *("initializer_range", "initializer_factor"),
    }
)


def settings(configured: Any) -> dict[str, Any]:
    """A model's or processor's configuration as JSON values, without bookkeeping keys and unset options."""
    return dict(_plain(configured.to_dict()))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {str(key): item for key, item in value.items() if key not in BOOKKEEPING and item is not None}
        return {key: _plain(item) for key, item in sorted(kept.items())}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | bool | int | float) else str(value)


def digest_weights(model: nn.Module) -> str:
    """Content hash of a model's parameters and buffers, by name."""
    hasher = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()


def check_same_identity(encoder: FrozenEncoder, planned: Mapping[str, Any]) -> None:
    """Raise RunFailed, naming every field that differs, unless `encoder` computes what `planned` (the
    `identity_fields()` of the plan's encoder) says."""
    if lines := field_differences(encoder.identity_fields(), planned):
        raise RunFailed(
            f"{encoder.name} is not the encoder the plan was made with: it changed while it was in use, or is another "
            "on this machine. Run the command again.\n  " + "\n  ".join(lines)
        )


def library_versions() -> dict[str, str]:
    """Name -> version of each library that decodes, tokenizes or computes in this process."""
    ours = {m.__name__: str(m.__version__) for m in (torch, transformers, tokenizers, safetensors)}
    return {**decode.library_versions(), **ours}


def version_changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One line a library that is not what it was: `torch: 2.12.0 then, 2.13.0 now`."""
    return [
        f"{name}: {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
