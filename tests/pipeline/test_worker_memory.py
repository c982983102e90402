"""What a worker holds is bounded by the plan: more decoders, larger pictures and segments state more."""

from __future__ import annotations

from pathlib import Path

from pgm.pipeline.encoders import EncoderSpec, build_encoder
from pgm.pipeline.engine.memory import PROCESS, worker_memory
from pgm.pipeline.media import FileMedia
from PIL import Image

MB = 1 << 20


def test_the_bound_follows_decoders_pictures_and_segments(tmp_path: Path) -> None:
    for name, size in (("small", (400, 300)), ("large", (4000, 3000))):
        Image.new("RGB", size, "gray").save(tmp_path / f"{name}.png")
    small, large = ([FileMedia(str(tmp_path / f"{name}.png"))] for name in ("small", "large"))
    encoder = build_encoder(EncoderSpec("vision"))
    one = worker_memory(encoder, small, MB, 0)
    assert worker_memory(encoder, small, 3 * MB, 0) > one
    assert worker_memory(encoder, small, 1 << 40, 0) < one + (1 << 30), "segments are bounded, whatever the store"
    eight = worker_memory(encoder, small, MB, 8)
    assert eight > one + 8 * PROCESS
    pixels = 3 * 3 * (4000 * 3000 - 400 * 300)
    assert 8 * pixels < worker_memory(encoder, large, MB, 8) - eight < 8.1 * pixels
