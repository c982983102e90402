"""Where and how precisely a model runs, and whether the same run gives the same bits there again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ...cache.errors import RunFailed, UserError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True)
class Machine:
    """A device and fp32 or bf16. compile: the training step; answers are the plain model's, as loaded."""

    device: torch.device
    precision: str
    compile: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


@contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """PyTorch's deterministic algorithms, and cuBLAS's workspace that they ask for, where wanted; then as before.

    Raises RunFailed for an operation that has none on this device.
    """
    if not wanted:
        yield
        return
    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get(CUBLAS)
    os.environ[CUBLAS] = workspace or ":4096:8"
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise RunFailed(
            f"--deterministic: {str(error).splitlines()[0]} Train without it, or on --device cpu."
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
        if workspace is None:
            del os.environ[CUBLAS]


def device_for(name: str) -> torch.device:
    """auto: the GPU where there is one. Raises UserError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"No device {name!r}. Use auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine has no CUDA device that PyTorch can use. Use --device cpu.")
    return device


def precision_for(name: str, device: torch.device) -> Any:
    """auto: bf16 on a GPU that has it, fp32 elsewhere."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
