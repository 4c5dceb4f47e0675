"""Options of conversions as frozen types, shared by the command line and the Python functions. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cgconvert.errors import UsageError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""Number formats in which the network can compute."""

ENGINES = ("eager", "compile", "tensorrt", "openvino")
"""What can run the network."""

EXPORT_SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "pth": ".pth"}
"""Formats that a model can be exported to, with the suffix of each file."""


@dataclass(frozen=True)
class EngineOptions:
    """Where and how the network runs. A `batch` of None is chosen by the free memory.

    `device` is "auto", "cpu", "cuda", "cuda:1", "rocm" (AMD), "mps" (Apple), "xpu" (Intel, by torch) or "gpu"
    (Intel, by OpenVINO). Several cards share a conversion as "cuda:0,1" or "all".

    `tile` is about pictures that go through the network in tiles, with the result that they have untiled:
    "auto" those that do not fit into memory, "off" none, a number all that are larger, in tiles of so many
    pixels a side. "fast:N" is as the number N, but networks with instance norms get statistics of the picture
    made smaller, so that each tile takes one pass; the result is not exact. "auto" does that where exact
    tiles would take more than three times as long, or do not fit.
    """

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    tile: str | int = "auto"


DEVICE_NAMES = "auto, cpu, cuda, cuda:N, rocm (AMD), mps (Apple), xpu or gpu (Intel)"
_DEVICE = re.compile(r"auto|cpu(:0)?|gpu|all|mps(:0)?|(cuda|rocm|xpu)(:\d{1,4})?")

SMALLEST_TILE = 32
"""Pixels: smaller ones are mostly surroundings that are computed again."""


def edge_of(tile: str | int) -> tuple[int | None, bool]:
    """The edge in pixels of the tiles that `EngineOptions.tile` asks for, None for auto, and whether fast.

    Raises `ValueError` for anything else.
    """
    if tile == "auto":
        return None, False
    is_fast = isinstance(tile, str) and tile.startswith("fast:")
    return int(str(tile).removeprefix("fast:")), is_fast


def check_engine_options(options: EngineOptions) -> None:
    """Raise `UsageError` for what makes no sense on any machine: names, batch and tiles."""
    check_engine_name(options.engine)
    for name in options.device.split(","):
        if not name.strip().isdecimal():
            check_device_name(name)
    if options.batch is not None and options.batch < 1:
        raise UsageError(f"`batch={options.batch}` is not at least 1")
    tile = options.tile
    number = tile.removeprefix("fast:") if isinstance(tile, str) and tile.startswith("fast:") else ""
    edge = int(number) if number.isdecimal() else tile
    if tile not in ("auto", "off") and not (isinstance(edge, int) and edge >= SMALLEST_TILE):
        raise UsageError(
            f"`tile={tile!r}` is unknown: use auto, off, or a number of pixels of at least {SMALLEST_TILE}, "
            "also as fast:N"
        )


def check_engine_name(name: str) -> None:
    """Raise `UsageError` unless this is an engine's name or "auto"."""
    if name not in ("auto", *ENGINES):
        raise UsageError(f"unknown engine {name!r}: use auto, {', '.join(ENGINES)}")


def check_device_name(name: str) -> None:
    """Raise `UsageError` unless this names one kind of device; whether there is one is not looked at."""
    if not _DEVICE.fullmatch(name.strip().lower()):
        raise UsageError(f"unknown device {name!r}: use {DEVICE_NAMES}")


@dataclass(frozen=True)
class VideoOptions:
    """How a video is converted and written.

    `codec` is h264, h265, av1, vp9, prores, ffv1 or the name of an NVENC encoder. None takes the container's
    usual one. `crf`, `preset` and `pix_fmt` are the encoder's own; None takes the codec's default.
    `size` is the result's and `work_size` the network's, as "WxH", "720p" or "0.5x". None takes the source's
    size for the one and the model's advice for the other. `stroke` says the size of strokes in the place of
    `work_size`: "fine", "medium", "large", or how many times as large as the model's own. `strength` is from
    0 (the source) to 1 (the look), and `keep_colours` takes only light and dark from the look.
    `start` and `end` are seconds from the beginning.
    `compare` shows source and result in one picture: "side" or "split". `decoder` is "auto", "cpu" or
    "nvdec", the decoder of an NVIDIA card. `strict` stops at the first damage. `resume` keeps finished
    segments beside the result, so that the same call continues an interrupted run, and `restart` drops them.
    `deinterlace` joins the fields of an interlaced video: "auto" to one picture a frame, "double" to one a
    field. "off" takes frames as they are, and "refuse" takes no interlaced video. `steady` says how far a
    result changes only where its source does: "off", "auto", or from 0 (not at all) to 1. `hdr` is for videos
    of high dynamic range (PQ, HLG), of which the network always sees what a viewer of SDR sees: "tonemap"
    makes an SDR video, "keep" expands the result to the source's HDR, and "refuse" takes no such video.
    `encoders` segments are encoded at once, with the same result. None: several where the network runs on a
    GPU and there are cores for them, otherwise one.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    size: str | None = None
    work_size: str | None = None
    stroke: str | float | None = None
    strength: float = 1.0
    keep_colours: bool = False
    start: float | None = None
    end: float | None = None
    compare: str | None = None
    overwrite: bool = False
    strict: bool = False
    decoder: str = "auto"
    resume: bool = True
    restart: bool = False
    deinterlace: str = "auto"
    steady: str | float = "auto"
    hdr: str = "tonemap"
    encoders: int | None = None


@dataclass(frozen=True)
class LiveOptions:
    """How live pictures are converted.

    `work_size`, `stroke`, `strength` and `keep_colours` mean what they mean for videos; without the first two
    the size is chosen so that the network keeps up. `rate` is the most pictures per second that are
    converted, None: all that come. After `seconds` it ends. `loop` plays a file again and again, `listen`
    waits for a stream that somebody else sends, and `overwrite` replaces a file.
    """

    work_size: str | None = None
    stroke: str | float | None = None
    strength: float = 1.0
    keep_colours: bool = False
    rate: float | None = None
    seconds: float | None = None
    loop: bool = False
    listen: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ImageOptions:
    """How images are converted and written.

    `work_size`, `stroke`, `strength` and `keep_colours` mean what they mean for videos.
    A `format` of None keeps the source's. `quality` is 1 to 100, and None takes the format's default.
    `overwrite` converts again what has a result. `watch` keeps converting what arrives in a folder.
    `pixel_limit` is the most pixels of one picture, in millions: a small file can ask for very many.
    """

    format: str | None = None
    quality: int | None = None
    overwrite: bool = False
    watch: bool = False
    work_size: str | None = None
    stroke: str | float | None = None
    strength: float = 1.0
    keep_colours: bool = False
    pixel_limit: int = 400
