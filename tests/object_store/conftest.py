"""One small dataset in a bucket and the same in a folder, and commands as a user types them on both."""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pgm.cli import app
from typer.testing import CliRunner, Result

torch.set_num_threads(1)
TINY = ["--set=dim=8", "--set=heads=2", "--set=feedforward=16", "--set=batch=16", "--epochs=2", "--pretrain-epochs=1"]


def run(*arguments: object) -> Result:
    """`pgm ARGUMENTS` in this process; what it raised is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def said(*arguments: object) -> Any:
    """The JSON a command prints."""
    return json.loads(run(*arguments, "--json").stdout)


@dataclass
class Places:
    """The same dataset `toy` under a folder and under s3://bucket/some/features, and a place for runs beside each."""

    folder: Path
    bucket: str

    @property
    def url(self) -> str:
        return f"{self.bucket}/some/features"

    def both(self, *arguments: object) -> tuple[Any, Any]:
        """A command's JSON on the folder and on the bucket, without what speaks of places and times."""
        found = []
        for place in (str(self.folder), self.url):
            text = json.dumps(said(*arguments, "--features", place)).replace(place, "PLACE")
            found.append(json.loads(text, object_hook=timeless))
        return found[0], found[1]


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in value.items() if k not in ("created", "seconds", "samples_per_second", "waiting")}


@pytest.fixture(scope="package")
def bucket(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket that the environment's variables lead to, for all of these tests; local folders are their own."""
    name = f"test-{secrets.token_hex(4)}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_endpoint}/{name}", method="PUT")).close()
    here = tmp_path_factory.mktemp("here")
    variables = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "PGM_MIRROR": str(here / "mirror"),
        "PGM_SCRATCH": str(here / "scratch"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        yield f"s3://{name}"


@pytest.fixture(scope="package")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 samples of two modalities whose label is two bits, one in each, in some noise; as an .npz."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (160, 2))
    path = tmp_path_factory.mktemp("arrays") / "toy.npz"
    towards = rng.normal(size=(2, 2, 6))
    tokens = [(towards[m][bits[:, m]][:, None] + rng.normal(size=(160, 3, 6))).astype(np.float32) for m in (0, 1)]
    split = np.array(["train"] * 96 + ["val"] * 32 + ["test"] * 32)
    np.savez(path, text=tokens[0], audio=tokens[1], label=bits @ [1, 2], split=split)
    return path


def import_arrays(arrays: Path, features: object) -> Any:
    """`pgm import` of the arrays as dataset toy."""
    modalities = ["--modality=text", "--tokens=text", "--modality=audio", "--tokens=audio"]
    return said("import", "toy", arrays, *modalities, "--labels=label", "--split=split", "--features", features)


@pytest.fixture(scope="package")
def places(bucket: str, arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Both places, filled by `pgm import`."""
    there = Places(tmp_path_factory.mktemp("features"), bucket)
    for place in (there.folder, there.url):
        import_arrays(arrays, place)
    return there
