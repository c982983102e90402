"""An encoder's identity: one input changed at a time must change it, and what decides no number must not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from distributed import LocalCluster
from pgm.cache import storage_at
from pgm.cache.errors import RunFailed, UserError
from pgm.pipeline import Collection, EncoderSpec
from pgm.pipeline.decode import versions
from pgm.pipeline.encoders import build_encoder, check_same_identity, resolve_spec
from pgm.pipeline.engine.cluster import DaskExecutor
from pgm.pipeline.engine.options import StoreOptions
from pgm.pipeline.engine.plan import make_plan

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
CLIP = {**SMALL, "image_size": 16, "patch_size": 8}


def edited(folder: Path, name: str, file: str, **changes: Any) -> Path:
    """A copy of a checkpoint with some values of one of its JSON files changed."""
    copy = folder.parent / name / folder.name
    shutil.copytree(folder, copy)
    settings = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**settings, **changes}))
    return copy


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**CLIP)).save_pretrained(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    transformers.CLIPImageProcessorPil(**size).save_pretrained(folder)
    return folder


def fields(folder: Path, **settings: Any) -> dict[str, Any]:
    return build_encoder(EncoderSpec("vision", str(folder), **settings)).identity_fields()


def test_two_folders_of_the_same_weights_and_another_activation_are_two_encoders(clip: Path) -> None:
    other = edited(clip, "gelu", "config.json", hidden_act="gelu")
    ours, theirs = fields(clip), fields(other)
    assert ours["weights"] == theirs["weights"]
    assert {key for key in ours if ours[key] != theirs[key]} == {"model_config"}


def test_what_a_checkpoint_says_of_its_saving_changes_nothing(clip: Path) -> None:
    noted = {"transformers_version": "4.0.0", "architectures": ["CLIPModel"], "id2label": {"0": "cat"}}
    other = edited(clip, "noted", "config.json", **noted, _name_or_path="/elsewhere", torch_dtype="float16")
    assert fields(clip) == fields(other)


def test_another_mean_of_the_processor_is_another_encoder(clip: Path) -> None:
    other = edited(clip, "mean", "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    ours, theirs = fields(clip), fields(other)
    assert {key for key in ours if ours[key] != theirs[key]} == {"processor_config"}


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")  # torch's own, on a first compile
def test_compiling_is_part_of_it_and_so_is_the_attention_that_runs(clip: Path) -> None:
    eager = fields(clip)
    assert eager["compiled"] is False
    assert fields(clip, compile=True)["compiled"] is True
    assert eager["attention"] == "sdpa"


def test_a_new_version_of_our_own_code_is_another_encoder(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(EncoderSpec("vision", str(clip)))
    before = encoder.identity_fields()
    monkeypatch.setattr(type(encoder), "version", type(encoder).version + 1)
    assert {key for key, value in encoder.identity_fields().items() if before[key] != value} == {"wrapper"}


def test_a_new_version_of_decoding_is_another_encoder(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(EncoderSpec("vision", str(clip)))
    before = encoder.identity_fields()
    monkeypatch.setitem(versions.DECODE_VERSION, "vision", 99)
    assert {key for key, value in encoder.identity_fields().items() if before[key] != value} == {"decode"}


def test_weights_that_a_checkpoint_lacks_and_nothing_uses_do_not_make_it_another_each_time(tmp_path: Path) -> None:
    """A masked-language checkpoint has no pooler: transformers draws one at random at each loading."""
    settings = transformers.RobertaConfig(**SMALL, vocab_size=40, max_position_embeddings=20)
    transformers.RobertaForMaskedLM(settings).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    digests = {build_encoder(EncoderSpec("text", str(tmp_path))).weights_digest for _ in range(2)}
    assert len(digests) == 1


def byte_tokenizer() -> Any:
    from pgm.pipeline.encoders.tiny import byte_tokenizer

    return byte_tokenizer(16)


def without_weight(folder: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_that_lacks_a_weight_its_encoder_uses_is_refused(clip: Path) -> None:
    lacking = next(name for name in torch_names(clip) if name.endswith("q_proj.weight"))
    without_weight(clip, lacking)
    with pytest.raises(UserError, match=r"lacks weights.*q_proj"):
        fields(clip)


def torch_names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


def test_auto_becomes_a_dtype_once_by_the_kind_of_device_that_will_compute() -> None:
    auto = EncoderSpec("text")
    assert resolve_spec(auto, "cpu").compute == "float32"
    assert resolve_spec(auto, "cuda").compute == "bfloat16"
    asked = EncoderSpec("text", compute="bfloat16")
    assert resolve_spec(asked, "cpu") == asked


def test_a_plan_made_here_for_workers_with_gpus_is_named_by_their_dtype(few_digits: Collection, tmp_path: Path) -> None:
    encoder = build_encoder(resolve_spec(EncoderSpec("text"), "cuda"))
    assert encoder.identity_fields()["compute_dtype"] == "bfloat16"
    assert encoder.compute == torch.bfloat16
    here = build_encoder(EncoderSpec("text", device="cpu"))
    # What is shipped says it too: a worker has nothing left to decide.
    for one, dtype in ((encoder, "bfloat16"), (here, "float32")):
        plan = make_plan(few_digits.ids, few_digits.media["text"], one, storage_at(tmp_path), StoreOptions())
        assert plan.job.spec.compute == dtype


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: edit(folder, "config.json", hidden_act="gelu"), "model_config.hidden_act"),
        (lambda folder: edit(folder, "preprocessor_config.json", do_rescale=False), "processor_config.do_rescale"),
    ],
)
def test_a_worker_whose_encoder_is_another_refuses_and_says_in_what(
    clip: Path, few_digits: Collection, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    encoder = build_encoder(EncoderSpec("vision", str(clip)))
    storage = storage_at(tmp_path / "features")
    job = make_plan(few_digits.ids, few_digits.media["vision"], encoder, storage, StoreOptions()).job
    assert job.build().identity_fields() == encoder.identity_fields()
    change(clip)
    with pytest.raises(RunFailed, match=rf"(?s)not the encoder the plan was made with.*{named}"):
        job.build()


def test_the_workers_of_a_scheduler_are_asked_for_their_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, processes=False, **here) as cluster:
        executor = DaskExecutor(scheduler=cluster.scheduler_address)
        try:
            assert executor.device_kind("auto") == "cpu"
            monkeypatch.setattr("pgm.pipeline.engine.cluster._device_kind", lambda device: "cuda")
            assert executor.device_kind("auto") == "cuda"
            mixed = lambda device, dask_worker: "cuda" if dask_worker.name == 0 else "cpu"  # noqa: E731
            monkeypatch.setattr("pgm.pipeline.engine.cluster._device_kind", mixed)
            with pytest.raises(UserError, match="--dtype float32, or --dtype bfloat16"):
                executor.device_kind("auto")
        finally:
            executor.close()


def edit(folder: Path, file: str, **changes: Any) -> None:
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**settings, **changes}))


def test_a_worker_compares_the_dtype_as_well(clip: Path) -> None:
    encoder = build_encoder(EncoderSpec("vision", str(clip), device="cpu"))
    planned = {**encoder.identity_fields(), "compute_dtype": "bfloat16"}
    with pytest.raises(RunFailed, match='compute_dtype: "float32" here, "bfloat16" asked for'):
        check_same_identity(encoder, planned)


def test_the_libraries_are_told_and_do_not_name(clip: Path) -> None:
    from pgm.pipeline.encoders import library_versions, version_changes

    now = library_versions()
    assert now["torch"] == torch.__version__
    assert now["transformers"] == transformers.__version__
    assert {"pillow", "soundfile", "tokenizers"} <= now.keys()
    assert not any(version in str(fields(clip)) for version in (torch.__version__, transformers.__version__))
    assert version_changes(now, now) == []
    assert version_changes({**now, "torch": "2.0.0", "gone": "1"}, now) == [
        "gone: 1 then, absent now",
        f"torch: 2.0.0 then, {torch.__version__} now",
    ]
