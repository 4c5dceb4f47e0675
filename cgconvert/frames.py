"""Frames, batches of frames and the description of a video: types that check their values when made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np


def check_pixels(pixels: np.ndarray, dimensions: int) -> None:
    """Raise `ValueError` unless `pixels` are uint8 or uint16 RGB with the channels last."""
    if pixels.ndim != dimensions or pixels.shape[-1] != 3 or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"pixels must be uint8 or uint16 with {dimensions} dimensions, the last of 3 channels; "
            f"got {pixels.dtype} {pixels.shape}"
        )
    if 0 in pixels.shape:
        raise ValueError(f"pixels must not be empty, got {pixels.shape}")


@dataclass(frozen=True)
class Frame:
    """One picture with a time.

    `pixels` are uint8 or uint16 RGB (H, W, 3); `pts` counts in units of the stream's time base;
    `duration` likewise (0: unknown). `source` is the picture before translation at the size of the result,
    kept only where source and result are shown together or blended: as pixels, or as planes in the format of
    the encoder. `seen` is what the network saw of it, kept where results are made steady. `state` is what
    making the next frame steady needs, kept at the ends of segments. `alpha` is the source's transparency at
    the size of the result, uint8 or uint16 (H, W), kept where the result can have it.
    """

    pixels: np.ndarray
    pts: int
    duration: int = 0
    source: np.ndarray | PlaneFrame | None = None
    seen: np.ndarray | None = None
    state: bytes | None = None
    alpha: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_pixels(self.pixels, 3)

    def __repr__(self) -> str:
        height, width, _ = self.pixels.shape
        return f"Frame({width}x{height} {self.pixels.dtype}, pts={self.pts})"

    @property
    def nbytes(self) -> int:
        """Bytes of picture that this frame keeps alive."""
        beside = [p.nbytes for p in (self.source, self.seen, self.alpha) if p is not None]
        return self.pixels.nbytes + sum(beside)


@dataclass(frozen=True)
class FrameBatch:
    """Frames of one size and type that go through the network together."""

    frames: Sequence[Frame]

    def __post_init__(self) -> None:
        kinds = {(frame.pixels.shape, frame.pixels.dtype) for frame in self.frames}
        if len(kinds) != 1:
            raise ValueError(
                f"a batch needs one or more frames of one shape and type, got {sorted(map(str, kinds))}"
            )

    def stack(self) -> np.ndarray:
        """All pixels as one (N, H, W, 3) array."""
        if len(self.frames) == 1:
            return self.frames[0].pixels[None]
        return np.stack([frame.pixels for frame in self.frames])


@dataclass(frozen=True)
class YuvFormat:
    """How planes hold a picture: everything that is needed to make RGB of them and back.

    `depth` bits a sample; `sub_x` and `sub_y`: luma samples for one of chroma along each side (1 or 2);
    `kr`, `kb`: the weights of red and blue in luma; `siting`: where the first chroma sample sits, in luma
    pixels right of and below the middle of the first pixel. `interleaved`: blue and red difference alternate
    in one plane (NV12); `high_bits`: samples fill the upper bits of 16 (P010) instead of the lower ones.
    """

    depth: int
    sub_x: int
    sub_y: int
    kr: float
    kb: float
    full_range: bool
    siting: tuple[float, float] = (0.5, 0.5)
    interleaved: bool = False
    high_bits: bool = False

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the chroma planes of a picture."""
        return -(-height // self.sub_y), -(-width // self.sub_x)

    def shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """The shape of each plane: luma (H, W), then (h, w) twice or (h, w, 2)."""
        chroma = self.chroma_size(height, width)
        return [(height, width), (*chroma, 2)] if self.interleaved else [(height, width), chroma, chroma]

    def nbytes(self, height: int, width: int) -> int:
        """Bytes of one picture."""
        rows, columns = self.chroma_size(height, width)
        return (height * width + 2 * rows * columns) * (1 if self.depth <= 8 else 2)


@dataclass(frozen=True)
class PlaneFrame:
    """One picture with a time, as its planes: what decoders give and encoders take.

    `planes` have the shapes that `format` says, in uint8 or uint16: numpy arrays, or where `on_card` tensors
    in the memory of the network's device. `width` and `height` are those of the luma plane. `state` as in
    `Frame`.
    """

    planes: Sequence[Any]
    format: YuvFormat
    width: int
    height: int
    pts: int
    duration: int = 0
    on_card: bool = False
    state: bytes | None = None

    @property
    def kind(self) -> tuple[YuvFormat, int, int, bool]:
        """What frames of one batch have in common."""
        return self.format, self.height, self.width, self.on_card

    @property
    def nbytes(self) -> int:
        """Bytes of picture that this frame keeps alive."""
        return self.format.nbytes(self.height, self.width)


@dataclass(frozen=True)
class StreamInfo:
    """What is known of a video stream before its frames are read.

    `width` and `height` are those of the upright picture; `rotation` (0, 90, 180, 270 degrees clockwise)
    has been applied to reach them. `rate` is the average frame rate (for rate control and estimates only;
    time lives in pts). `frames` is the container's own count or an estimate, None if unknown. `siting` is
    where subsampled chroma sits, as in `YuvFormat`; `decoder` FFmpeg's name for the codec. `field_order`:
    "tff" or "bff" where frames hold two fields, by the one shown first. `mastering_display` and
    `light_levels`: HDR10 metadata as `media.video.tags.read_hdr` gives it. `alpha_beside`: WebM keeps alpha
    in a second picture beside each frame, of which `pixel_format` tells nothing.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    pixel_format: str
    bit_depth: int
    frames: int | None = None
    duration: float | None = None
    rotation: int = 0
    sample_aspect_ratio: Fraction | None = None
    colorspace: int = 2
    color_range: int = 0
    color_primaries: int = 2
    color_trc: int = 2
    siting: tuple[float, float] = (0.5, 0.5)
    decoder: str = ""
    field_order: str = ""
    mastering_display: tuple[Fraction, ...] = ()
    light_levels: tuple[int, ...] = ()
    alpha_beside: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a stream has at least one pixel, got {self.width}x{self.height}")
        if self.time_base <= 0:
            raise ValueError(f"a time base is positive, got {self.time_base}")
        if self.rotation not in (0, 90, 180, 270):
            raise ValueError(f"rotation is a multiple of 90 degrees, got {self.rotation}")
