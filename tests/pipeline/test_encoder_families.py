"""Families beyond the first: small checkpoints by save_pretrained, batches against plain transformers one by one."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
import transformers
from pgm.cache import (
    Identity,
    ids_digest,
    open_dataset,
    open_features,
    storage_at,
    token_times,
    write_features,
)
from pgm.cache.errors import UserError
from pgm.pipeline import EncoderSpec, ExtractOptions, extract
from pgm.pipeline.datasets.table import Columns, load_table
from pgm.pipeline.decode import decode_frames
from pgm.pipeline.encoders import FrozenEncoder, build_encoder
from pgm.pipeline.encoders.tiny import byte_tokenizer
from pgm.pipeline.media import FileMedia, Media, TextMedia
from PIL import Image

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
CONV = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
SPEECH = {**SMALL, **CONV, "num_conv_pos_embedding_groups": 4}
WORDS = {**SMALL, "vocab_size": 300, "max_position_embeddings": 40}
CLIP_TEXT = {**WORDS, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
TEXTS = ["seven", "the quick brown fox", "", "a far longer text 🦊", "ß"]


@dataclass(frozen=True)
class Family:
    """A checkpoint to write (model class, its configuration, processor) and how plain transformers runs it."""

    modality: str
    model: str
    config: dict[str, Any]
    processor: Callable[[], Any]
    extra: Callable[[Any], dict[str, Any]] = lambda model: {}
    saved: str | None = None  # the class that is saved, where it is not the one that runs
    frames: int = 0
    loading: tuple[tuple[str, Any], ...] = ()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models here are tiny: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**options)


SQUARE = made("ViTImageProcessorPil", size={"height": 32, "width": 32})
NAFLEX = made("Siglip2ImageProcessorPil", patch_size=8, max_num_patches=20)
CROPPED = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
SPEECH_EXTRACTOR = made("Wav2Vec2FeatureExtractor")


def bytes_of_text() -> Any:
    return byte_tokenizer(24)


def unmarked() -> Any:
    """A decoder's tokenizer: it marks neither beginning nor end, and pads on the left."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    plain = Tokenizer(models.BPE(vocab={"<end>": 0, **{chr(97 + n): n + 1 for n in range(26)}}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<end>", padding_side="left", model_max_length=24
    )


BYTES = {**WORDS, "pad_token_id": 0}
FAMILIES: dict[str, Family] = {
    "mt5": Family(
        "text",
        "MT5EncoderModel",
        {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        bytes_of_text,
    ),
    "xlm-roberta": Family("text", "XLMRobertaModel", BYTES, bytes_of_text),
    "distilbert": Family(
        "text",
        "DistilBertModel",
        {"vocab_size": 300, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 40},
        bytes_of_text,
    ),
    "electra": Family("text", "ElectraModel", {**BYTES, "embedding_size": 16}, bytes_of_text),
    "deberta": Family(
        "text",
        "DebertaV2Model",
        {**BYTES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
        bytes_of_text,
    ),
    "mpnet": Family("text", "MPNetModel", BYTES, bytes_of_text),
    "modernbert": Family(
        "text", "ModernBertModel", {**WORDS, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 1}, bytes_of_text
    ),
    "llama": Family("text", "LlamaModel", {**WORDS, "num_key_value_heads": 2}, unmarked, saved="LlamaForCausalLM"),
    "qwen3": Family("text", "Qwen3Model", {**WORDS, "num_key_value_heads": 2, "head_dim": 8}, unmarked),
    "gpt2": Family("text", "GPT2Model", {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 300}, unmarked),
    "clip-text": Family("text", "CLIPTextModel", CLIP_TEXT, bytes_of_text),
    "dinov3": Family(
        "vision", "DINOv3ViTModel", {**SMALL, "image_size": 32, "patch_size": 8, "num_register_tokens": 4}, SQUARE
    ),
    "dinov3-convnext": Family("vision", "DINOv3ConvNextModel", STAGES, SQUARE),
    "siglip2": Family(
        "vision",
        "Siglip2VisionModel",
        {**SMALL, "patch_size": 8, "num_patches": 16},
        NAFLEX,
    ),
    "vit-mae": Family(
        "vision",
        "ViTMAEModel",
        {**SMALL, "image_size": 32, "patch_size": 8},
        SQUARE,
        extra=lambda model: {"noise": torch.arange(16)[None]},
        loading=(("mask_ratio", 0.0),),
    ),
    "swin": Family(
        "vision",
        "SwinModel",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        SQUARE,
    ),
    "mobilenet-v1": Family("vision", "MobileNetV1Model", {"depth_multiplier": 0.25}, SQUARE),
    "mobilenet-v2": Family("vision", "MobileNetV2Model", {"depth_multiplier": 0.35}, SQUARE),
    "convnext": Family("vision", "ConvNextModel", STAGES, SQUARE),
    "convnext-v2": Family("vision", "ConvNextV2Model", STAGES, SQUARE),
    "resnet": Family("vision", "ResNetModel", {**STAGES, "embedding_size": 8, "layer_type": "basic"}, SQUARE),
    "wavlm": Family("audio", "WavLMModel", {**SPEECH, "num_conv_pos_embeddings": 16}, SPEECH_EXTRACTOR),
    "data2vec-audio": Family(
        "audio",
        "Data2VecAudioModel",
        {**SPEECH, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5},
        SPEECH_EXTRACTOR,
    ),
    "clap": Family(
        "audio",
        "ClapAudioModel",
        {
            "hidden_size": 32,
            "patch_embeds_hidden_size": 8,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "window_size": 4,
            "spec_size": 64,
            "num_mel_bins": 16,
            "patch_size": 4,
            "patch_stride": [4, 4],
        },
        made(
            "ClapFeatureExtractor",
            feature_size=16,
            max_length_s=1,
            sampling_rate=16_000,
            fft_window_size=512,
            frequency_max=8000,
            hop_length=160,
            truncation="rand_trunc",
            padding="repeatpad",
        ),
        extra=lambda model: {"is_longer": torch.zeros(1, 1, dtype=torch.bool)},
    ),
    "videomae": Family(
        "vision",
        "VideoMAEModel",
        {**SMALL, "image_size": 16, "patch_size": 8, "num_frames": 4, "tubelet_size": 2},
        made("VideoMAEImageProcessorPil", **CROPPED),
        frames=4,
    ),
    "vivit": Family(
        "vision",
        "VivitModel",
        {**SMALL, "image_size": 16, "tubelet_size": [2, 8, 8], "num_frames": 4},
        made("VivitImageProcessor", **CROPPED),
        frames=4,
    ),
    "timesformer": Family(
        "vision",
        "TimesformerModel",
        {**SMALL, "image_size": 16, "patch_size": 8, "num_frames": 4},
        made("VideoMAEImageProcessorPil", **CROPPED),
        frames=4,
    ),
    "vjepa2": Family(
        "vision",
        "VJEPA2Model",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "crop_size": 16,
            "patch_size": 8,
            "frames_per_clip": 4,
            "tubelet_size": 2,
            "pred_hidden_size": 24,
            "pred_num_attention_heads": 4,
            "pred_num_hidden_layers": 1,
        },
        made("VJEPA2VideoProcessor", **CROPPED),
        extra=lambda model: {"skip_predictor": True},
        frames=4,
    ),
}


def write_clip(path: Path, frames: int) -> None:
    rng = np.random.default_rng(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for _ in range(frames):
            picture = av.VideoFrame.from_ndarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Media]]:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    found: dict[str, list[Media]] = {"text": [TextMedia(text) for text in TEXTS], "vision": [], "audio": [], "clip": []}
    for number in range(3):
        picture, sound, clip = (folder / f"{number}.{kind}" for kind in ("png", "wav", "mp4"))
        Image.fromarray(rng.integers(0, 256, (40 + 9 * number, 56, 3)).astype(np.uint8)).save(picture)
        soundfile.write(sound, 0.3 * rng.normal(size=1600 + 700 * (number // 2)), 16_000)
        write_clip(clip, 6 + number)
        for kind, path in (("vision", picture), ("audio", sound), ("clip", clip)):
            found[kind].append(FileMedia(str(path)))
    return found


def write(family: Family, folder: Path) -> Path:
    try:
        processor = family.processor()
    except ImportError as error:
        pytest.skip(f"this processor needs a library that is not here: {str(error).strip().splitlines()[0]}")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = getattr(transformers, family.saved or family.model, None)
    if model is None:
        pytest.skip(f"this transformers has no {family.model}")
    torch.manual_seed(0)
    model(model.config_class(**family.config)).eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def alone(family: Family, folder: Path, item: Media) -> np.ndarray:
    """One item's valid tokens by transformers alone: no batch, no padding."""
    model = getattr(transformers, family.model).from_pretrained(folder, **dict(family.loading)).eval()
    processor = family.processor()
    if isinstance(item, TextMedia):
        ids = processor(item.text).input_ids or [processor.eos_token_id]
        inputs = {"input_ids": torch.tensor([ids])}
    elif family.modality == "audio":
        wave, rate = soundfile.read(item.path, dtype="float32")
        inputs = dict(processor(wave, sampling_rate=rate, return_tensors="pt"))
        inputs.pop("attention_mask", None)
    elif family.frames:
        frames = decode_frames(item.read(), family.frames)
        clip = [np.stack([np.asarray(frame) for frame in frames])] if family.model == "VJEPA2Model" else frames
        inputs = dict(processor(clip, return_tensors="pt"))
    else:
        inputs = dict(processor(Image.open(item.path), return_tensors="pt"))
    with torch.inference_mode():
        hidden = model(**{**inputs, **family.extra(model)}).last_hidden_state[0]
    if hidden.ndim == 3:
        hidden = hidden.reshape(len(hidden), -1).T
    return hidden[: int(inputs["pixel_attention_mask"].sum())] if "pixel_attention_mask" in inputs else hidden


def measured(encoder: FrozenEncoder, items: list[Media]) -> list[int]:
    """Tokens each item's features are said to have."""
    return [encoder.pooled_length(n) for n in encoder.lengths([encoder.decode(item) for item in items])]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_what_plain_transformers_gives_each_item_alone(
    name: str, media: dict[str, list[Media]], tmp_path: Path
) -> None:
    family = FAMILIES[name]
    folder = write(family, tmp_path / name)
    items = media["clip" if family.frames else family.modality]
    encoder = build_encoder(EncoderSpec(family.modality, str(folder)))
    lengths = measured(encoder, items)
    for length in set(lengths) if not encoder.mixes_lengths else [None]:
        rows = [row for row in range(len(items)) if length is None or lengths[row] == length]
        tokens = encoder.encode(encoder.collate([encoder.decode(items[row]) for row in rows]))
        for row, found in zip(rows, tokens, strict=True):
            expected = alone(family, folder, items[row])
            assert found.shape == (lengths[row], encoder.dim) == expected.shape
            np.testing.assert_allclose(found, expected, atol=3e-5)
    assert build_encoder(EncoderSpec(family.modality, str(folder))).identity_fields() == encoder.identity_fields()


def test_the_place_in_time_of_a_clips_tokens_is_recorded(tmp_path: Path) -> None:
    folder = write(FAMILIES["videomae"], tmp_path)
    fields = build_encoder(EncoderSpec("vision", str(folder))).identity_fields()
    assert (fields["grid"], fields["decode"]["frames"]) == ([2, 2, 2], 4)
    with pytest.raises(UserError, match=r"takes clips of 4 frames\. Leave --frames out"):
        build_encoder(EncoderSpec("vision", str(folder), frames=8))


@pytest.mark.parametrize("name", ["videomae", "vivit"])
def test_a_clips_tokens_lie_where_what_they_see_happens(name: str, tmp_path: Path) -> None:
    """Two clips that differ in their second half only: their embedded tokens differ exactly where times say so."""
    folder = write(FAMILIES[name], tmp_path / "checkpoint")
    for clip, late in (("still", 40), ("moving", 220)):
        with av.open(str(tmp_path / f"{clip}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
            for shade in (40, 40, 40, 40, late, late, late, late):
                picture = av.VideoFrame.from_ndarray(np.full((24, 32, 3), shade, np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    (tmp_path / "clips.csv").write_text("clip,label\nstill.mp4,a\nmoving.mp4,b\n")
    clips = load_table(tmp_path / "clips.csv", Columns(image="clip", label="label"))
    encoders = {"vision": EncoderSpec("vision", str(folder), layer=0)}
    extract(clips, tmp_path / "f", ExtractOptions(encoders=encoders, executor="serial"))
    features = open_dataset(tmp_path / "f", "clips").features("vision")
    times = token_times(features, 0, seconds=1.0)
    differs = np.abs(features[0].astype(float) - features[1].astype(float)).max(1) > 1e-3
    placed = ~np.isnan(times)
    assert sorted(set(times[placed].tolist())) == [0.25, 0.75]
    assert (len(times), int((~placed).sum())) == (len(features[0]), int(name == "vivit"))
    assert np.array_equal(differs[placed], times[placed] > 0.5)
    np.testing.assert_allclose(token_times(features, 0, seconds=8.0), 8 * times)


def test_pooled_tokens_and_pictures_have_no_times(tmp_path: Path, media: dict[str, list[Media]]) -> None:
    for fields, why in (({"grid": [2, 2, 2], "pooling": "mean"}, "were pooled"), ({"pooling": "none"}, "not tubelets")):
        ids, storage = ["a"], storage_at(tmp_path)
        identity = Identity("vision", "toy", fields)
        write_features(storage, identity, ids, ids_digest(ids), [8], np.zeros((8, 4), np.float32), "float32")
        with pytest.raises(UserError, match=why):
            token_times(open_features(tmp_path / identity.folder), 0)


def test_layers_of_a_map_have_their_own_width(tmp_path: Path, media: dict[str, list[Media]]) -> None:
    folder = write(FAMILIES["resnet"], tmp_path)
    encoder = build_encoder(EncoderSpec("vision", str(folder), layer=2))
    [tokens] = encoder.encode(encoder.collate([encoder.decode(media["vision"][0])]))
    assert tokens.shape == (16, 16) == (measured(encoder, media["vision"][:1])[0], encoder.dim)


def test_what_lies_before_a_texts_tokens_in_a_decoder_is_the_text_alone(tmp_path: Path) -> None:
    encoder = build_encoder(EncoderSpec("text", str(write(FAMILIES["llama"], tmp_path)), pooling="last"))
    short, long = (encoder.decode(TextMedia(text)) for text in ("a b c", "a b c d e f g h"))
    [padded, _] = encoder.encode(encoder.collate([short, long]))
    [single] = encoder.encode(encoder.collate([short]))
    np.testing.assert_allclose(padded, single, atol=1e-6)
    assert padded.shape == (1, 32)


def test_a_prompt_stands_before_every_text_and_in_the_identity(tmp_path: Path) -> None:
    folder = write(FAMILIES["modernbert"], tmp_path / "e5-base-v2")
    plain = write(FAMILIES["modernbert"], tmp_path / "other")
    e5, bare = (build_encoder(EncoderSpec("text", str(path))) for path in (folder, plain))
    asked = build_encoder(EncoderSpec("text", str(plain), prompt="query: "))
    assert (e5.prompt, bare.prompt, asked.prompt) == ("query: ", "", "query: ")
    assert e5.identity_fields() == asked.identity_fields() != bare.identity_fields()
    assert measured(e5, [TextMedia("x")]) == measured(bare, [TextMedia("query: x")]) == [9]


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken", "max"])
def test_a_sentences_vector_is_the_librarys(mode: str, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="pip install 'pgm[sentence-transformers]'")
    modules = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    write(FAMILIES["modernbert"], tmp_path / "base")
    layers = [modules.Transformer(str(tmp_path / "base")), modules.Pooling(32, pooling_mode=mode)]
    layers += [modules.Dense(32, 8), modules.Normalize()] if mode == "mean" else [modules.Normalize()]
    whole = library.SentenceTransformer(modules=layers, device="cpu")
    whole.save(str(tmp_path / "saved"))
    encoder = build_encoder(EncoderSpec("text", str(tmp_path / "saved"), pooling="sentence"))
    texts = [text for text in TEXTS if text]
    items = [TextMedia(text) for text in texts]
    found = encoder.encode(encoder.collate([encoder.decode(item) for item in items]))
    assert encoder.dim == (8 if mode == "mean" else 32)
    assert measured(encoder, items) == [1] * len(items)
    np.testing.assert_allclose(np.concatenate(found), whole.encode(texts), atol=2e-6)


def test_a_checkpoint_without_a_rule_for_sentences_says_so(tmp_path: Path) -> None:
    folder = write(FAMILIES["modernbert"], tmp_path)
    with pytest.raises(UserError, match="does not say how a text becomes one vector"):
        build_encoder(EncoderSpec("text", str(folder), pooling="sentence"))


def test_a_timm_checkpoint(tmp_path: Path, media: dict[str, list[Media]]) -> None:
    timm = pytest.importorskip("timm", reason="pip install 'pgm[timm]'", exc_type=Exception)
    model = timm.create_model("mobilenetv3_small_050", pretrained=False).eval()
    timm.models.save_for_hf(model, str(tmp_path))
    encoder = build_encoder(EncoderSpec("vision", str(tmp_path)))
    tokens = encoder.encode(encoder.collate([encoder.decode(item) for item in media["vision"]]))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    for item, found in zip(media["vision"], tokens, strict=True):
        assert isinstance(item, FileMedia)
        with torch.inference_mode():
            expected = model.forward_features(transform(Image.open(item.path).convert("RGB"))[None])[0]
        np.testing.assert_allclose(found, expected.flatten(1).T, atol=3e-5)


def test_a_folder_of_the_real_mobilenet(shared_data: Path) -> None:
    folder = shared_data / "encoders" / "mobilenet_v1_1.0_224"
    pictures = sorted((shared_data / "flickr8k_1k" / "images").glob("*.jpg"))[:3]
    encoder = build_encoder(EncoderSpec("vision", str(folder)))
    tokens = encoder.encode(encoder.collate([encoder.decode(FileMedia(str(path))) for path in pictures]))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    for path, found in zip(pictures, tokens, strict=True):
        with torch.inference_mode(), Image.open(path) as image:
            expected = model(**processor(image, return_tensors="pt")).last_hidden_state[0]
        assert found.shape == (49, 1024)
        np.testing.assert_allclose(found, expected.reshape(1024, 49).T, atol=1e-4)


def static_folder(folder: Path) -> Path:
    """Four words and an unknown one in model2vec's layout."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder.mkdir()
    words = Tokenizer(models.WordLevel({"[UNK]": 4, "a": 0, "red": 1, "fox": 2, "runs": 3}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    save_file({"embeddings": torch.randn(5, 6)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "model2vec", "normalize": false, "hidden_dim": 6}')
    return folder


def test_static_vectors_are_those_of_the_known_words(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = static_folder(tmp_path / "words")
    table = load_file(folder / "model.safetensors")["embeddings"].numpy()
    encoder = build_encoder(EncoderSpec("text", str(folder)))
    items = [TextMedia(text) for text in ("A red, quick FOX!", "nothing known", "", "runs")]
    tokens = encoder.encode(encoder.collate([encoder.decode(item) for item in items]))
    assert measured(encoder, items) == [3, 1, 1, 1]
    assert encoder.dim == 6
    for found, expected in zip(tokens, (table[[0, 1, 2]], np.zeros((1, 6)), np.zeros((1, 6)), table[[3]]), strict=True):
        np.testing.assert_array_equal(found, expected)
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert build_encoder(EncoderSpec("text", str(moved))).identity_fields() == encoder.identity_fields()


@pytest.mark.parametrize("real", [False, True])
def test_the_mean_of_static_vectors_is_model2vecs(real: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model2vec = pytest.importorskip("model2vec", reason="the model2vec library is not installed")
    texts = ["A red fox runs", "the dog and the cat sat on a mat", "zzzz qqqq"]
    if real:
        folder = request.getfixturevalue("shared_data") / "encoders" / "word2vec_8k"
    else:
        folder = static_folder(tmp_path / "words")
    encoder = build_encoder(EncoderSpec("text", str(folder), pooling="mean"))
    found = encoder.encode(encoder.collate([encoder.decode(TextMedia(text)) for text in texts]))
    expected = model2vec.StaticModel.from_pretrained(str(folder)).encode(texts)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)
