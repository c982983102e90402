"""Opening a video or sound container with FFmpeg, and nothing but the container.

FFmpeg has demuxers that are programs: SDP opens network ports, concat, HLS and DASH texts name other files to read.
Only `CONTAINERS` are opened, whatever a file is called, and only `CODECS` decoded; no protocol is allowed, so that a
container which refers elsewhere gets nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer

from .errors import DecodeError, refusing

# FFmpeg's demuxer names; "mov" is MP4, M4A and 3GP too, "matroska" is WebM.
CONTAINERS = (
    *("mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "h264", "hevc", "flv", "asf", "ogg", "ivf"),
    *("mp3", "aac", "wav", "w64", "flac", "aiff", "au", "caf", "amr", "ac3", "eac3"),
)
VIDEO_CODECS = """h264 hevc av1 vp8 vp9 mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2 msmpeg4v3 h263 flv1 mjpeg theora
    wmv1 wmv2 wmv3 vc1 prores dnxhd ffv1 huffyuv rawvideo dvvideo cinepak svq1 svq3 png"""
AUDIO_CODECS = """aac mp1 mp2 mp3 opus vorbis flac alac ac3 eac3 amr_nb amr_wb wmav1 wmav2 wmapro wmalossless speex gsm
    gsm_ms adpcm_ms adpcm_ima_wav adpcm_ima_qt pcm_alaw pcm_mulaw pcm_u8 pcm_s8 pcm_s16le pcm_s16be pcm_s24le pcm_s24be
    pcm_s32le pcm_s32be pcm_f32le pcm_f32be pcm_f64le pcm_f64be"""
CODECS = frozenset([*VIDEO_CODECS.split(), *AUDIO_CODECS.split()])
# 8192 x 4320. A stream may change its size on the way: the decoder itself holds to the limit.
MAX_FRAME_PIXELS = 8192 * 4320


@contextmanager
def opened(data: bytes, what: str) -> Iterator[InputContainer]:
    """The container in `data`, to be decoded within. Raises DecodeError that begins with `what` for whatever FFmpeg
    raises there."""
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none"}
    with refusing(what):
        try:
            container = av.open(io.BytesIO(data), mode="r", options=options)
        except av.ArgumentError:
            raise DecodeError(f"{what}: not a container of a kind that is opened (MP4, WebM, AVI, ...)") from None
        with container:
            yield container


def check_codec(stream: av.VideoStream | av.AudioStream) -> None:
    """Raises DecodeError for a stream whose codec is unknown or not in `CODECS`."""
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
    if codec not in CODECS:
        raise DecodeError(f"codec {codec}, which is not decoded here; convert it to H.264 or AAC")
