"""High dynamic range: PQ and HLG pictures as a viewer of SDR sees them, and back.

Stated methods: transfer functions and HLG's OOTF by ITU-R BT.2100-2, tone mapping by method A of Report ITU-R
BT.2446-1 for a display of 100 cd/m2, gamut by ITU-R BT.2087 (linear matrices, here from the chromaticities,
and clipping). SDR is shown with gamma 2.4, as ITU-R BT.1886 says for a black of 0 cd/m2.

Everything is looked up in tables over 16 bits, which are made once in float64. The arithmetic between uses
only operators, so that the same lines run on numpy arrays and on torch tensors of any device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cgconvert.errors import InputError
from cgconvert.frames import StreamInfo

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273 (SMPTE ST 2084, ARIB STD-B67)."""

TRANSFER_NAMES = {PQ: "PQ", HLG: "HLG"}
HDR_MODES = ("tonemap", "keep", "refuse")

BT709, BT2020 = 1, 9
"""Colour primaries and, with the same numbers, matrix coefficients of ITU-T H.273."""

PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # P3 with the white of D65 (SMPTE EG 432-1)
}
"""CIE 1931 x and y of red, green and blue, all with D65 as white. What is not among them
counts as BT.2020."""

D65 = (0.3127, 0.3290)
LUMA = (0.2627, 0.6780, 0.0593)
"""Weights of red, green and blue in BT.2020's luma and luminance."""

SDR_PEAK = 100.0
USUAL_PEAK = 1000.0
"""cd/m2 of HLG's nominal display, and of PQ that says nothing of its own brightness."""

HLG_GAMMA = 1.2
"""HLG's system gamma for a display of 1000 cd/m2."""

GAMMA = 2.4
STEPS = 65536
"""Entries of a table: one for each value of 16 bits."""


def pq_to_light(signal: np.ndarray) -> np.ndarray:
    """PQ signal from 0 to 1 to cd/m2 (EOTF of BT.2100, table 4)."""
    root = np.asarray(signal, np.float64) ** (32 / 2523)
    return 10000 * (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)


def light_to_pq(light: np.ndarray) -> np.ndarray:
    """cd/m2 up to 10000 to PQ signal from 0 to 1 (inverse EOTF of BT.2100, table 4)."""
    power = (np.asarray(light, np.float64) / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


_HLG_A = 0.17883277
_HLG_B = 1 - 4 * _HLG_A
_HLG_C = 0.5 - _HLG_A * np.log(4 * _HLG_A)


def hlg_to_scene(signal: np.ndarray) -> np.ndarray:
    """HLG signal to linear light of the scene, both from 0 to 1 (inverse OETF of BT.2100, table 5)."""
    signal = np.asarray(signal, np.float64)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _HLG_C) / _HLG_A) + _HLG_B) / 12)


def scene_to_hlg(scene: np.ndarray) -> np.ndarray:
    """Linear light of the scene to HLG signal, both from 0 to 1 (OETF of BT.2100, table 5)."""
    scene = np.asarray(scene, np.float64)
    upper = _HLG_A * np.log(np.maximum(12 * scene - _HLG_B, 1e-9)) + _HLG_C
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def method_a(luma: np.ndarray, peak: float) -> np.ndarray:
    """HDR luma (gamma 2.4, 1 at `peak` cd/m2) to SDR luma: the curve of BT.2446 method A, both 0 to 1."""
    rho_hdr, rho_sdr = (1 + 32 * (light / 10000) ** (1 / GAMMA) for light in (peak, SDR_PEAK))
    perceived = np.log1p((rho_hdr - 1) * np.asarray(luma, np.float64)) / np.log(rho_hdr)
    mapped = np.select(
        [perceived <= 0.7399, perceived < 0.9909],
        [1.0770 * perceived, -1.1510 * perceived**2 + 2.7811 * perceived - 0.6302],
        0.5 * perceived + 0.5,
    )
    return (rho_sdr**mapped - 1) / (rho_sdr - 1)


def gamut_matrix(source: int, target: int) -> np.ndarray:
    """The matrix (3, 3) from linear RGB of one of `PRIMARIES` to that of another (BT.2087, annex 1)."""
    return np.linalg.inv(_to_xyz(target)) @ _to_xyz(source)


def _to_xyz(primaries: int) -> np.ndarray:
    def xyz(point: tuple[float, float]) -> np.ndarray:
        return np.array([point[0], point[1], 1 - point[0] - point[1]]) / point[1]

    columns = np.stack([xyz(point) for point in PRIMARIES.get(primaries, PRIMARIES[BT2020])], 1)
    return columns * np.linalg.solve(columns, xyz(D65))


Lookup = Callable[[str, Any], Any]
"""Looks values from 0 to 1 up in one of the tables of a `ToneMapping`, by its name."""


class ToneMapping:
    """Between HDR signals (PQ or HLG, the source's primaries) and SDR signals (gamma 2.4, BT.709).

    `peak` is the brightest light of the source in cd/m2, which becomes the white of SDR. `to_sdr` and
    `to_hdr` are inverses but for colours outside BT.709 and light above the peak, which are clipped.
    """

    def __init__(self, transfer: int, peak: float, primaries: int = BT2020) -> None:
        self.transfer, self.peak = transfer, peak
        grid = np.linspace(0, 1, STEPS)
        curve = method_a(grid, peak)
        scale = np.empty(STEPS)
        scale[1:] = curve[1:] / (1.1 * grid[1:])
        scale[0] = scale[1]
        unscale = np.empty(STEPS)
        unscale[1:] = 1.1 * np.interp(grid[1:], curve, grid) / grid[1:]
        unscale[0] = unscale[1]
        tables = {
            "scale": scale,
            "unscale": unscale,
            "linear": grid**GAMMA,
            "root": grid ** (2 / GAMMA),  # of the square root of light, in which its steps are even
        }
        if transfer == PQ:
            tables["signal"] = (pq_to_light(grid) / peak).clip(0, 1) ** (1 / GAMMA)
            tables["code"] = light_to_pq(peak * grid**GAMMA)
        else:
            tables["scene"] = hlg_to_scene(grid)
            tables["signal"] = tables["scene"] ** (1 / GAMMA)
            tables["code"] = scene_to_hlg(grid**2)
        self.tables = {name: table.astype(np.float32) for name, table in tables.items()}
        self.to_bt709, self.from_bt709 = gamut_matrix(BT2020, BT709), gamut_matrix(BT709, BT2020)
        self.other_primaries = primaries in PRIMARIES and primaries != BT2020
        self.to_bt2020, self.from_bt2020 = (
            gamut_matrix(primaries, BT2020),
            gamut_matrix(BT2020, primaries),
        )

    def to_sdr(self, rgb: list[Any], look: Lookup) -> list[Any]:
        """Three channels of HDR signals from 0 to 1 as SDR signals from 0 to 1."""
        signal = [look("signal", channel) for channel in rgb]
        if self.transfer == HLG:  # its OOTF: each channel times luminance ** (gamma - 1)
            light = _weighted(LUMA, [look("scene", channel) for channel in rgb])
            gain = light ** ((HLG_GAMMA - 1) / GAMMA)
            signal = [channel * gain for channel in signal]
        if self.other_primaries:
            signal = self._converted(self.to_bt2020, signal, look)
        luma = _weighted(LUMA, signal)
        scale = look("scale", luma)
        red, green, blue = ((channel - luma) * scale for channel in signal)
        mapped = luma * scale * 1.1 - (red * (0.1 / (2 - 2 * LUMA[0]))).clip(0, None)
        return self._converted(
            self.to_bt709, [(mapped + part).clip(0, 1) for part in (red, green, blue)], look
        )

    def to_hdr(self, rgb: list[Any], look: Lookup) -> list[Any]:
        """The inverse of `to_sdr`."""
        signal = self._converted(self.from_bt709, rgb, look)
        mapped = _weighted(LUMA, signal)
        differences = [channel - mapped for channel in signal]
        curve = mapped + (differences[0] * (0.1 / (2 - 2 * LUMA[0]))).clip(0, None)
        unscale = look("unscale", curve.clip(0, 1))
        luma = curve * unscale * (1 / 1.1)
        signal = [(luma + part * unscale).clip(0, 1) for part in differences]
        if self.other_primaries:
            signal = self._converted(self.from_bt2020, signal, look)
        if self.transfer == PQ:
            return [look("code", channel) for channel in signal]
        light = [look("linear", channel) for channel in signal]
        gain = _weighted(LUMA, light).clip(1e-9, None) ** (1 / HLG_GAMMA - 1)
        return [look("code", (channel * gain).clip(0, 1) ** 0.5) for channel in light]

    @staticmethod
    def _converted(matrix: np.ndarray, signal: list[Any], look: Lookup) -> list[Any]:
        """Signals of gamma 2.4 in other primaries, clipped to what these can show."""
        light = [look("linear", channel) for channel in signal]
        rows = [tuple(map(float, row)) for row in matrix]
        return [look("root", _weighted(row, light).clip(0, 1) ** 0.5) for row in rows]

    def pixels_to_sdr(self, pixels: np.ndarray) -> np.ndarray:
        """HDR pixels (H, W, 3) of uint16 as SDR pixels of the same shape and type."""
        return self._mapped(pixels, self.to_sdr)

    def pixels_to_hdr(self, pixels: np.ndarray) -> np.ndarray:
        """SDR pixels (H, W, 3) of uint8 or uint16 as HDR pixels of uint16."""
        if pixels.dtype == np.uint8:
            pixels = pixels.astype(np.uint16) * 257
        return self._mapped(pixels, self.to_hdr)

    def _mapped(self, pixels: np.ndarray, change: Callable[[list[Any], Lookup], list[Any]]) -> np.ndarray:
        """Some rows at a time, which stay in the processor's cache."""

        def look(name: str, values: np.ndarray) -> np.ndarray:
            # What is uint16 is an index already.
            index = values if values.dtype == np.uint16 else (values * (STEPS - 1) + 0.5).astype(np.uint16)
            return self.tables[name].take(index)

        changed = np.empty_like(pixels)
        rows = max(1, CACHED_PIXELS // pixels.shape[1])
        for start in range(0, len(pixels), rows):
            part = pixels[start : start + rows]
            channels = change([np.ascontiguousarray(part[..., number]) for number in range(3)], look)
            for number, channel in enumerate(channels):
                changed[start : start + rows, :, number] = channel * (STEPS - 1) + 0.5
        return changed


CACHED_PIXELS = 16384


def _weighted(weights: tuple[float, ...], channels: list[Any]) -> Any:
    red, green, blue = channels
    return red * weights[0] + green * weights[1] + blue * weights[2]


def is_hdr(info: StreamInfo) -> bool:
    """Whether a stream's pictures are of high dynamic range."""
    return info.color_trc in TRANSFER_NAMES


def peak_of(info: StreamInfo) -> tuple[float, str]:
    """The brightest light of an HDR stream in cd/m2, and in words where it is known from.

    MaxCLL (CTA-861.3) or else the mastering display's (SMPTE ST 2086) for PQ; HLG has a nominal one.
    """
    if info.color_trc == PQ:
        if info.light_levels and info.light_levels[0] > 0:
            return _within(info.light_levels[0]), "its MaxCLL"
        if info.mastering_display and info.mastering_display[9] > 0:
            return _within(float(info.mastering_display[9])), "its mastering display"
    return USUAL_PEAK, "nominal"


def _within(light: float) -> float:
    return min(max(float(light), SDR_PEAK), 10000.0)


def tone_mapping(info: StreamInfo) -> ToneMapping | None:
    """What shows a stream's pictures as SDR, or None if they are SDR."""
    return _tone_mapping(info.color_trc, peak_of(info)[0], info.color_primaries) if is_hdr(info) else None


@lru_cache(maxsize=4)
def _tone_mapping(transfer: int, peak: float, primaries: int) -> ToneMapping:
    return ToneMapping(transfer, peak, primaries)


@dataclass(frozen=True)
class HdrPlan:
    """What becomes of an HDR video: `mode` is "tonemap" or "keep", `peak` the light in cd/m2 that is
    white in SDR."""

    mode: str
    transfer: str
    peak: float
    peak_from: str

    def described(self, info: StreamInfo) -> StreamInfo:
        """What is known of the result's stream: that of the source if it is kept, else SDR in BT.709."""
        if self.mode == "keep":
            return info
        sdr = {"colorspace": BT709, "color_primaries": BT709, "color_trc": BT709}
        return StreamInfo(**{**info.__dict__, **sdr, "mastering_display": (), "light_levels": ()})

    def describe(self) -> str:
        """What was done, in words."""
        how = f"BT.2446 method A, {self.peak:g} cd/m2 ({self.peak_from}) as white"
        if self.mode == "keep":
            return (
                f"HDR ({self.transfer}) is kept: the network sees it as SDR ({how}), and its result is "
                f"expanded to {self.transfer} by the inverse; colours outside BT.709 are clipped"
            )
        return (
            f"HDR ({self.transfer}) becomes SDR (BT.709): tone mapped by {how}; "
            'use `hdr="keep"` for a result in HDR'
        )


def choose_hdr(path: object, info: StreamInfo, mode: str) -> HdrPlan | None:
    """Decide what becomes of a video's high dynamic range, as asked by one of `HDR_MODES`; None if it is SDR.

    Raises `InputError` if it is HDR and `mode` is "refuse".
    """
    if not is_hdr(info):
        return None
    name = TRANSFER_NAMES[info.color_trc]
    if mode == "refuse":
        raise InputError(
            f'{path}: high dynamic range ({name}): use `hdr="tonemap"` to make SDR of it, or "keep"'
        )
    return HdrPlan(mode, name, *peak_of(info))
