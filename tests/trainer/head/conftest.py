"""Loads the oracle beside the tests (test folders are no packages) and makes the small ragged batch most tests use."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor


def load_oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pgm_oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: more threads only wait for each other, for seconds when other processes are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    return load_oracle()


@pytest.fixture
def widths() -> dict[str, int]:
    return {"text": 12, "vision": 16, "audio": 16}


@pytest.fixture
def batch(widths: dict[str, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Five samples: ragged text, full vision, audio that two samples lack; every kind of layout at once."""
    generator = torch.Generator().manual_seed(7)
    lengths = {"text": 6, "vision": 4, "audio": 3}
    tokens = {m: torch.randn(5, n, widths[m], generator=generator) for m, n in lengths.items()}
    text = torch.arange(6) < torch.tensor([6, 1, 3, 2, 4])[:, None]
    audio = torch.arange(3) < torch.tensor([3, 0, 3, 0, 2])[:, None]
    return tokens, {"text": text, "audio": audio}
