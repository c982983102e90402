"""Which encoders a dataset gets, what is said where they cannot be had, and `pgm encoders`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pgm.cache.errors import UserError
from pgm.pipeline import Collection, ExtractOptions, extract, load_dataset
from pgm.pipeline.commands import encoder_specs
from pgm.pipeline.datasets import adapters
from pgm.pipeline.encoder_commands import encoders_app
from pgm.pipeline.encoders import EncoderSpec, specs_for
from pgm.pipeline.encoders.presets import PRESETS, PUBLISHED, default_preset, source_of
from pgm.pipeline.engine.events import Event
from typer.testing import CliRunner

CLIP, AST = "openai/clip-vit-base-patch32", "MIT/ast-finetuned-audioset-10-10-0.4593"


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(encoders_app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_papers_encoders_are_the_default_of_every_dataset_but_the_embedded_one(av_root: Path) -> None:
    assert {name for name in adapters() if default_preset(name) != "paper"} == {"digits"}
    assert default_preset("my-own-table") == "paper"
    specs = specs_for(load_dataset("av_mnist", av_root), {})
    assert {m: spec.source for m, spec in specs.items()} == {"audio": AST, "vision": CLIP}
    assert PRESETS["paper"].sources == {"text": "google-t5/t5-base", "vision": CLIP, "audio": AST}


def test_a_preset_is_for_all_modalities_and_an_encoder_for_one(few_digits: Collection) -> None:
    mine = EncoderSpec("text", "some/model")
    specs = specs_for(few_digits, {"text": mine}, "clip")
    assert {m: spec.source for m, spec in specs.items()} == {"text": "some/model", "audio": AST, "vision": CLIP}
    assert {spec.source for spec in specs_for(few_digits, {}).values()} == {"tiny"}
    assert source_of("tiny", "imu") == "patch"
    assert source_of("patch", "text") == "patch"


def test_every_encoder_of_a_preset_is_described_before_it_is_fetched() -> None:
    for preset in (PRESETS["paper"], PRESETS["clip"]):
        for modality, source in preset.sources.items():
            known = PUBLISHED[source, modality]
            assert min(known.width, known.parameters) > 0
            assert known.tokens
            assert known.licence


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub refuses every connection, and nothing is cached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.usefixtures("no_network")
def test_without_network_or_a_copy_the_commands_that_fetch_elsewhere_are_named(av_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        extract(load_dataset("av_mnist", av_root), tmp_path / "features")
    said = str(refused.value)
    assert f"{AST} and {CLIP} are not on this machine" in said
    for source in (AST, CLIP):
        assert f"\n  hf download {source}\n" in said
        assert f"\n  hf download {source} --local-dir {source.split('/')[1]}\n" in said
    assert "--encoders tiny needs no download" in said
    assert not (tmp_path / "features").exists()


@pytest.mark.usefixtures("no_network")
def test_a_name_that_is_nearly_one_is_told(few_digits: Collection, tmp_path: Path) -> None:
    specs = {"text": EncoderSpec("text", "tinny")}
    with pytest.raises(UserError, match="Did you mean 'tiny'"):
        extract(few_digits, tmp_path / "features", ExtractOptions(encoders=specs))


def test_one_modality_may_be_given_what_a_preset_has_for_it() -> None:
    specs = encoder_specs({"text": "tiny", "vision": "tiny"}, {"source": ["vision=paper"]}, {})
    assert {m: spec.source for m, spec in specs.items()} == {"text": "tiny", "vision": CLIP}
    with pytest.raises(
        UserError, match=r"names the modality 'txt'; the dataset has text, vision\. Did you mean 'text'"
    ):
        encoder_specs({"text": "tiny", "vision": "tiny"}, {"source": ["txt=tiny"]}, {})


def test_an_encoder_of_another_modality_is_told_before_the_first_is_run(
    few_digits: Collection, shared_data: Path, tmp_path: Path
) -> None:
    for name, kind in (("word2vec_8k", "text"), ("mobilenet_v1_1.0_224", "vision")):
        source = str(shared_data / "encoders" / name)
        events: list[Event] = []
        options = ExtractOptions(encoders={"audio": EncoderSpec("audio", source)}, executor="serial")
        with pytest.raises(UserError, match=f"{name} is a {kind} encoder and was asked to encode audio"):
            extract(few_digits, tmp_path / "features", options, events.append)
        assert events == []


def test_make_extract_says_where_it_looked_in_makes_words(tmp_path: Path) -> None:
    """As typed: `make extract DATASET=food101`."""
    root = Path(__file__).parents[2]
    make = ["make", "--no-print-directory", "--assume-old", ".venv/installed", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(
        [*make, "extract", "DATASET=food101"],
        cwd=root,
        env=os.environ | {"PGM_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"looked for in {tmp_path / 'food101'}" in done.stderr
    assert "make extract DATASET=food101 ROOT=DIR" in done.stderr
    assert "PGM_DATA" in done.stderr
    nothing = subprocess.run([*make, "extract"], cwd=root, capture_output=True, text=True, check=False)
    assert nothing.returncode == 2
    assert "make extract DATASET=digits" in nothing.stderr


def test_ls_lists_presets_builders_and_families() -> None:
    told = json.loads(run("ls", "--json").stdout)
    assert set(told["presets"]) == {"paper", "clip", "tiny"}
    assert {"tiny", "patch"} <= set(told["encoders"])
    assert {"DINOv3", "SigLIP 2", "MobileNet", "V-JEPA 2", "timm"} <= set(told["families"]["vision"])
    shown = run("ls").stdout
    for words in ("google-t5/t5-base", "any series", "ModernBERT", "Data2Vec"):
        assert words in shown


def test_show_says_what_an_encoder_is_like(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    [text] = json.loads(run("show", "paper", "--modality", "text", "--json").stdout)
    assert (text["width"], text["tokens"], text["licence"]) == (768, "up to 512", "Apache-2.0")
    assert text["where"] == ""
    assert "hf download google-t5/t5-base" in run("show", "paper").stdout
    tiny = {one["modality"]: one for one in json.loads(run("show", "tiny", "--json").stdout)}
    assert (tiny["vision"]["width"], tiny["vision"]["tokens"]) == (128, "17")
    assert "tiny (random weights, not pretrained)" in run("show", "tiny").stdout


def test_show_of_a_folder_finds_what_it_encodes(shared_data: Path) -> None:
    [words] = json.loads(run("show", shared_data / "encoders" / "word2vec_8k", "--json").stdout)
    assert (words["modality"], words["width"], words["parameters"]) == ("text", 300, 8001 * 300)


def test_check_measures_an_encoder_here() -> None:
    [rate] = json.loads(run("check", "tiny", "--modality", "text", "--batch-size", 4, "--json").stdout)
    assert (rate["encoder"], rate["width"], rate["batch_size"], rate["compute"]) == ("tiny-t5", 128, 4, "float32")
    assert min(rate["decoded"], rate["encoded"]) > 0
    # Extraction gives a CPU's image encoder eight pictures at a time, whatever is asked.
    [pictures] = json.loads(run("check", "tiny", "--modality", "vision", "--json").stdout)
    assert (pictures["tokens"], pictures["batch_size"]) == (17, 8)
    [series] = json.loads(run("check", "patch:window=50,channels=6", "--json").stdout)
    assert (series["tokens"], series["width"]) == (60, 6 * 6 + 11)


def test_check_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match="use auto, cpu or cuda"):
        run("check", "tiny", "--device", "gpu")
    with pytest.raises(UserError, match="say window=SAMPLES and channels=NUMBER"):
        run("check", "patch")
