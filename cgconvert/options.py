"""What can be asked for, as frozen types; the command line and the Python functions share them. No torch."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""The arithmetic that a conversion can have inside the network."""

EXPORT_SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "pth": ".pth"}
"""What a model can be exported as, and the suffix of such a file."""


@dataclass(frozen=True)
class EngineOptions:
    """Where and how the network runs. `batch` None: chosen by the memory at hand."""

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    batch: int | None = None


@dataclass(frozen=True)
class VideoOptions:
    """How a video is converted and written.

    `codec`: h264, h265, av1, vp9, prores, ffv1 or an NVENC encoder's name; None: what the container
    calls for. `size` and `work_size`: "WxH", "720p" or "0.5x"; None: the source's, the card's advice.
    `start` and `end` in seconds. `compare`: "side", "split" or None. `decoder`: "auto", "cpu", or "nvdec",
    the decoder of an NVIDIA card. `resume`: keep finished segments beside the result, so that
    the same call goes on where it was broken off; `restart` drops what is kept and begins again.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    size: str | None = None
    work_size: str | None = None
    start: float | None = None
    end: float | None = None
    compare: str | None = None
    overwrite: bool = False
    strict: bool = False
    decoder: str = "auto"
    resume: bool = True
    restart: bool = False


@dataclass(frozen=True)
class ImageOptions:
    """How images are written. `format` None: the source's; `quality` 1 to 100, None: the format's."""

    format: str | None = None
    quality: int | None = None
    overwrite: bool = False
    watch: bool = False
