"""Every encoder family through its real hub-format path: a small checkpoint from save_pretrained, loaded as a user's.

The truth is plain transformers: one sample, no batch, no padding, no PgM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline import EncoderSpec
from pgm.pipeline.encode import Failure, encode_batch
from pgm.pipeline.encoders import FrozenEncoder, build_encoder
from pgm.pipeline.engine.batches import Waiting, filled
from pgm.pipeline.engine.decoding import decode_part
from pgm.pipeline.engine.worker import one_thread
from pgm.pipeline.media import FileMedia, Media, TextMedia
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

TEXTS = ["seven", "the quick brown fox", "", "a far longer text that needs more tokens than its neighbours do 🦊", "ß"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
T5_SMALL = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
CONV = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
SPEECH = {**SMALL, **CONV, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


def trained_tokenizer(style: str) -> Any:
    """A word-piece or unigram tokenizer trained on the spot."""
    special = {"bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "t5": ["<pad>", "</s>", "<unk>"]}[style]
    core = Tokenizer(models.WordPiece(unk_token="[UNK]") if style == "bert" else models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = (trainers.WordPieceTrainer if style == "bert" else trainers.BpeTrainer)(
        vocab_size=120, special_tokens=special, show_progress=False
    )
    core.train_from_iterator(TEXTS * 3, trainer)
    if style == "bert":
        return transformers.BertTokenizerFast(tokenizer_object=core, model_max_length=16)
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=24
    )


def vision_processor(kind: str) -> Any:
    cls = getattr(transformers, kind)
    if kind == "SiglipImageProcessorPil":
        return cls(size={"height": 32, "width": 32})
    if kind == "ViTImageProcessorPil":
        return cls(size={"height": 32, "width": 32})
    return cls(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def _vision(config: str, model: str, processor: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        settings = getattr(transformers, config)(**SMALL, image_size=32, patch_size=8)
        getattr(transformers, model)(settings).save_pretrained(folder)
        vision_processor(processor).save_pretrained(folder)

    return write


def _bert(config: str, model: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tokenizer = trained_tokenizer("bert")
        extra = {"max_position_embeddings": 40, "pad_token_id": tokenizer.pad_token_id}
        settings = getattr(transformers, config)(**SMALL, **extra, vocab_size=len(tokenizer))
        getattr(transformers, model)(settings).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return write


def _t5(folder: Path) -> None:
    tokenizer = trained_tokenizer("t5")
    config = transformers.T5Config(**T5_SMALL, vocab_size=len(tokenizer))
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _full_clip(folder: Path) -> None:
    """A whole CLIP, both towers, as the hub's checkpoints are."""
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    text = {**SMALL, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
    transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    vision_processor("CLIPImageProcessorPil").save_pretrained(folder)


def _ast(folder: Path) -> None:
    config = transformers.ASTConfig(**SMALL, max_length=64, num_mel_bins=32, frequency_stride=16, time_stride=16)
    transformers.ASTModel(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)


def _whisper(folder: Path) -> None:
    config = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        num_mel_bins=80,
        vocab_size=60,
        max_source_positions=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    transformers.WhisperModel(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)


def _speech(config: str, model: str, norm: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        settings = getattr(transformers, config)(**SPEECH, feat_extract_norm=norm)
        getattr(transformers, model)(settings).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)

    return write


FAMILIES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "t5": ("text", _t5, "T5EncoderModel"),
    "bert": ("text", _bert("BertConfig", "BertModel"), "BertModel"),
    "roberta": ("text", _bert("RobertaConfig", "RobertaModel"), "RobertaModel"),
    "clip": ("vision", _full_clip, "CLIPVisionModel"),
    "siglip": (
        "vision",
        _vision("SiglipVisionConfig", "SiglipVisionModel", "SiglipImageProcessorPil"),
        "SiglipVisionModel",
    ),
    "vit": ("vision", _vision("ViTConfig", "ViTModel", "ViTImageProcessorPil"), "ViTModel"),
    "dinov2": ("vision", _vision("Dinov2Config", "Dinov2Model", "ViTImageProcessorPil"), "Dinov2Model"),
    "ast": ("audio", _ast, "ASTModel"),
    "whisper": ("audio", _whisper, "WhisperModel"),
    "wav2vec2-group": ("audio", _speech("Wav2Vec2Config", "Wav2Vec2Model", "group"), "Wav2Vec2Model"),
    "wav2vec2-layer": ("audio", _speech("Wav2Vec2Config", "Wav2Vec2Model", "layer"), "Wav2Vec2Model"),
    "hubert": ("audio", _speech("HubertConfig", "HubertModel", "group"), "HubertModel"),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for name, (_, write, _) in FAMILIES.items():
        write(folder / name)
    return {name: folder / name for name in FAMILIES}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Media]]:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    vision: list[Media] = []
    audio: list[Media] = []
    for number in range(5):
        size = (40 + 9 * number, 56, 3)
        Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(folder / f"{number}.png")
        soundfile.write(folder / f"{number}.wav", 0.3 * rng.normal(size=1600 + 700 * (number // 2)), 16_000)
        vision.append(FileMedia(str(folder / f"{number}.png")))
        audio.append(FileMedia(str(folder / f"{number}.wav")))
    return {"text": [TextMedia(text) for text in TEXTS], "vision": vision, "audio": audio}


def plain_forward(folder: Path, modality: str, loader: str, item: Media) -> np.ndarray:
    """One sample's last hidden state by transformers alone."""
    model = getattr(transformers, loader).from_pretrained(folder).eval()
    model = model.get_encoder() if loader == "WhisperModel" else model
    if modality == "text":
        assert isinstance(item, TextMedia)
        inputs = transformers.AutoTokenizer.from_pretrained(folder)(item.text, truncation=True, return_tensors="pt")
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    elif modality == "vision":
        assert isinstance(item, FileMedia)
        with Image.open(item.path) as image:
            inputs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")(image, return_tensors="pt")
    else:
        assert isinstance(item, FileMedia)
        wave, rate = soundfile.read(item.path, dtype="float32")
        inputs = transformers.AutoFeatureExtractor.from_pretrained(folder)(
            wave, sampling_rate=rate, return_tensors="pt"
        )
    with torch.inference_mode():
        return np.asarray(model(**inputs).last_hidden_state[0])


def features(encoder: FrozenEncoder, items: list[Media]) -> list[np.ndarray]:
    """In the batches that a segment of these items is encoded in."""
    waiting, found = Waiting(encoder), {}
    batches = [*waiting.add(decode_part(encoder, items).of(None, items, 0)), *waiting.of(None)]
    for batch in batches:
        outcomes = encode_batch(encoder, filled(batch, encoder), "float32")
        found |= {item.place: tokens for item, tokens in zip(batch, outcomes, strict=False)}
    assert not any(isinstance(tokens, Failure) for tokens in found.values()), found
    return [found[row] for row in range(len(items))]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_what_plain_transformers_gives_each_sample_alone(
    name: str, checkpoints: dict[str, Path], media: dict[str, list[Media]]
) -> None:
    modality, _, loader = FAMILIES[name]
    encoder = build_encoder(EncoderSpec(modality, str(checkpoints[name])))
    for item, tokens in zip(media[modality], features(encoder, media[modality]), strict=True):
        alone = plain_forward(checkpoints[name], modality, loader, item)
        assert tokens.shape == (encoder.lengths([encoder.decode(item)])[0], encoder.dim) == alone.shape
        np.testing.assert_allclose(tokens, alone, atol=2e-5)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_samples_bits_do_not_depend_on_who_shares_its_task_or_batch(
    name: str, compute: str, checkpoints: dict[str, Path], media: dict[str, list[Media]]
) -> None:
    """A store that grew must be the one made in one go: alone, in other orders, numbers and batch sizes."""
    modality = FAMILIES[name][0]
    items = media[modality] * 7
    spec = EncoderSpec(modality, str(checkpoints[name]), compute=compute, device="cpu")
    together = features(build_encoder(spec), items)
    rng = np.random.default_rng(0)
    for size in (1, 3, 16, None):
        encoder = build_encoder(replace(spec, batch_size=size))
        for count in (1, 2, 5, 17):
            rows = rng.permutation(len(items))[:count]
            for row, tokens in zip(rows, features(encoder, [items[row] for row in rows]), strict=True):
                assert np.array_equal(tokens, together[row]), (size, count, row)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_wide_models_bits_do_not_depend_on_how_full_its_batch_is(tmp_path: Path, compute: str) -> None:
    """At the widths of published checkpoints a matrix product takes other paths than at a test's."""
    tokenizer = trained_tokenizer("bert")
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    size = {"hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 1536}
    config = transformers.BertConfig(vocab_size=len(tokenizer), **size)
    transformers.BertModel(config).save_pretrained(tmp_path)
    encoder = build_encoder(EncoderSpec("text", str(tmp_path), compute=compute, device="cpu"))
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())[:40]
    items: list[Media] = [TextMedia(" ".join(words[(row * step) % 40] for step in (1, 3, 7))) for row in range(400)]
    with one_thread(encoder):  # as a worker
        together = features(encoder, items)
        for count in (1, 5, 33):
            for tokens, whole in zip(features(encoder, items[:count]), together, strict=False):
                assert np.array_equal(tokens, whole), count


@pytest.mark.parametrize("name", ["t5", "bert", "vit", "ast"])
def test_identity_knows_weights_processor_and_settings_but_no_path(
    name: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    modality = FAMILIES[name][0]
    fields = build_encoder(EncoderSpec(modality, str(checkpoints[name]))).identity_fields()
    (tmp_path / "moved").mkdir()
    elsewhere = tmp_path / "moved" / name
    elsewhere.symlink_to(checkpoints[name])
    assert build_encoder(EncoderSpec(modality, str(checkpoints[name]))).identity_fields() == fields
    assert str(checkpoints[name]) not in str(fields)
    assert fields["random_weights"] is False
    mean = build_encoder(EncoderSpec(modality, str(checkpoints[name]), pooling="mean")).identity_fields()
    assert {key for key in fields if fields[key] != mean[key]} == {"pooling"}


def test_a_changed_weight_changes_the_identity(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = transformers.BertModel.from_pretrained(checkpoints["bert"])
    before = build_encoder(EncoderSpec("text", str(checkpoints["bert"]))).weights_digest
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[3, 3] += 1e-3
    model.save_pretrained(tmp_path / "bert")
    trained_tokenizer("bert").save_pretrained(tmp_path / "bert")
    assert build_encoder(EncoderSpec("text", str(tmp_path / "bert"))).weights_digest != before


def test_layers_and_pooling(checkpoints: dict[str, Path], media: dict[str, list[Media]]) -> None:
    folder, texts = str(checkpoints["bert"]), media["text"]
    full = features(build_encoder(EncoderSpec("text", folder)), texts)
    last = features(build_encoder(EncoderSpec("text", folder, layer=-1)), texts)
    first = features(build_encoder(EncoderSpec("text", folder, layer=0)), texts)
    mean = features(build_encoder(EncoderSpec("text", folder, pooling="mean")), texts)
    cls = features(build_encoder(EncoderSpec("text", folder, pooling="cls")), texts)
    four = features(build_encoder(EncoderSpec("text", folder, pooling="tokens:4")), texts)
    for row, tokens in enumerate(full):
        np.testing.assert_array_equal(last[row], tokens)
        assert not np.allclose(first[row], tokens)
        np.testing.assert_allclose(mean[row], tokens.mean(0, keepdims=True), atol=1e-6)
        np.testing.assert_array_equal(cls[row], tokens[:1])
        assert four[row].shape == (min(len(tokens), 4), 32)
        # Average pooling of equal parts keeps the mean where the parts are equal.
        if len(tokens) % 4 == 0:
            np.testing.assert_allclose(four[row].mean(0), tokens.mean(0), atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_above_the_asked_one_are_not_computed_and_change_no_bit(
    name: str, checkpoints: dict[str, Path], media: dict[str, list[Media]]
) -> None:
    modality = FAMILIES[name][0]
    encoder = build_encoder(EncoderSpec(modality, str(checkpoints[name]), layer=1))
    batch = encoder.to_device(encoder.collate([encoder.decode(media[modality][0])]))
    with torch.inference_mode():
        expected = encoder.model(**batch, output_hidden_states=True).hidden_states[1]
        encoder.hidden(batch)
        assert encoder._above is not None
        computed: list[Any] = []
        encoder._above.register_forward_hook(lambda *_: computed.append(_))
        found = encoder.hidden(batch)
    assert torch.equal(found.reshape(expected.shape), expected)
    assert not computed


def test_longer_texts_are_cut_at_max_tokens(checkpoints: dict[str, Path]) -> None:
    encoder = build_encoder(EncoderSpec("text", str(checkpoints["t5"]), max_tokens=5))
    assert encoder.lengths([encoder.decode(TextMedia("seven " * 6))]) == [5]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EncoderSpec("text", compute="float16"), "T5's activations overflow float16"),
        (EncoderSpec("text", pooling="cls"), "no CLS token"),
        (EncoderSpec("smell"), "tiny has encoders for text, vision, audio, not for 'smell'"),
        (
            EncoderSpec("text", "no/such-encoder"),
            "cannot be reached.*hf download no/such-encoder.*--encoders tiny",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    spec: EncoderSpec, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((UserError, NotFound), match=f"(?s){message}"):
        build_encoder(spec)


def test_an_encoder_of_another_modality_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="is a vision encoder and was asked to encode text"):
        build_encoder(EncoderSpec("text", str(checkpoints["vit"])))


def test_a_layer_that_is_not_there_is_named(checkpoints: dict[str, Path], media: dict[str, list[Media]]) -> None:
    encoder = build_encoder(EncoderSpec("text", str(checkpoints["bert"]), layer=9))
    with pytest.raises(UserError, match="hidden states 0 to 2"):
        features(encoder, media["text"])


def test_a_family_nobody_wrapped_is_named(tmp_path: Path) -> None:
    transformers.Wav2Vec2BertConfig().save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"'wav2vec2-bert' model, .*fits no rule.*Known to run: text: T5.*pgm\.encoders"
    ):
        build_encoder(EncoderSpec("audio", str(tmp_path)))


@pytest.mark.parametrize("pooling", ["max", "tokens:0", "tokens:", "tokens:-3", ""])
def test_an_unknown_pooling_is_refused_when_it_is_asked_for(pooling: str) -> None:
    with pytest.raises(UserError, match="use none, mean, cls, last, sentence or tokens:K"):
        EncoderSpec("text", pooling=pooling)
