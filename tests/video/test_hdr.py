"""PQ and HLG: what the network sees and what the result holds, against the formulas of the standards."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cgconvert.cli import main
from cgconvert.errors import InputError, UsageError
from cgconvert.frames import StreamInfo
from cgconvert.media.video.colour import FromPixels, ToPixels
from cgconvert.media.video.probe import probe
from cgconvert.media.video.tone import HLG, PQ, ToneMapping, peak_of
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.video.pipeline import convert_video, run_video
from cgconvert.video.plan import plan_video
from cgconvert.video.route import choose_route

Array = np.ndarray
LUMA = np.array([0.2627, 0.6780, 0.0593])
TO_BT709 = np.array(
    [
        [1.66049100, -0.58764114, -0.07284986],
        [-0.12455047, 1.13289990, -0.00834942],
        [-0.01815076, -0.10057890, 1.11872966],
    ]
)
"""From linear BT.2020 to linear BT.709: the inverse of BT.2087's matrix before it is rounded to 4 digits."""


def pq_light(signal: Array) -> Array:
    """cd/m2 of a PQ signal, by table 4 of BT.2100 with its decimal constants."""
    power = signal ** (1 / 78.84375)
    return 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (
        1 / 0.1593017578125
    )


def pq_signal(light: Array) -> Array:
    """PQ signal of cd/m2."""
    power = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_light(signal: Array) -> Array:
    """cd/m2 of an HLG signal on a display of 1000 cd/m2, by table 5 of BT.2100: inverse OETF, then OOTF."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return 1000 * (scene @ LUMA)[..., None] ** 0.2 * scene


def expected_sdr(light: Array, peak: float) -> Array:
    """SDR signal (gamma 2.4, BT.709) of light in BT.2020, step by step as BT.2446 describes method A."""
    gamma = np.clip(light / peak, 0, 1) ** (1 / 2.4)
    luma = gamma @ LUMA
    rho_hdr, rho_sdr = 1 + 32 * (peak / 10000) ** (1 / 2.4), 1 + 32 * (100 / 10000) ** (1 / 2.4)
    y_p = np.log(1 + (rho_hdr - 1) * luma) / np.log(rho_hdr)
    y_c = np.where(
        y_p <= 0.7399,
        1.0770 * y_p,
        np.where(y_p < 0.9909, -1.1510 * y_p**2 + 2.7811 * y_p - 0.6302, 0.5 * y_p + 0.5),
    )
    y_sdr = (rho_sdr**y_c - 1) / (rho_sdr - 1)
    f = y_sdr / (1.1 * np.maximum(luma, 1e-12))
    cb, cr = f * (gamma[..., 2] - luma) / 1.8814, f * (gamma[..., 0] - luma) / 1.4746
    y_tmo = y_sdr - np.maximum(0.1 * cr, 0)
    red, blue = y_tmo + 1.4746 * cr, y_tmo + 1.8814 * cb
    green = (y_tmo - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    linear = np.clip(np.stack([red, green, blue], -1), 0, 1) ** 2.4
    return np.clip(linear @ TO_BT709.T, 0, 1) ** (1 / 2.4)


def all_colours(steps: int) -> Array:
    """RGB signals (steps ** 2, steps, 3) of 16 bits over the whole cube."""
    grid = np.linspace(0, 65535, steps).round().astype(np.uint16)
    return np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(steps**2, steps, 3)


@pytest.mark.parametrize(("transfer", "peak"), [(PQ, 600), (PQ, 1000), (PQ, 4000), (HLG, 1000)])
def test_every_colour_as_the_standards_say(transfer: int, peak: float) -> None:
    """The tables have steps of 1 / 65535, worth up to 1 / 16000 of light after gamma and matrix. Where a
    channel of a saturated colour is nearly black, its gamma makes much more of that."""
    pixels = all_colours(17)
    light = (pq_light if transfer == PQ else hlg_light)(pixels / 65535)
    got = ToneMapping(transfer, peak).pixels_to_sdr(pixels)
    assert_same_light(got / 65535, expected_sdr(light, peak))


def assert_same_light(got: Array, wanted: Array) -> None:
    """SDR signals equal to 1 / 16000 of white's light, and unless nearly black to a tenth of 255 levels."""
    assert np.abs(got**2.4 - wanted**2.4).max() < 1 / 16000
    assert np.abs(got - wanted)[wanted > 0.1].max() < 0.1 / 255


def test_what_a_viewer_sees_of_grey() -> None:
    """Figures worked out by hand: diffuse white of 203 cd/m2 (BT.2408) is two thirds of the signal's range,
    black is black and the peak is white."""
    light = np.array([0, 203, 1000])
    pixels = np.repeat((pq_signal(light) * 65535).round().astype(np.uint16)[:, None], 3, 1)[None]
    got = ToneMapping(PQ, 1000).pixels_to_sdr(pixels)[0, :, 1] / 65535
    assert got == pytest.approx([0, 0.687, 1], abs=0.001)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_expanding_is_the_inverse(transfer: int) -> None:
    """Every SDR colour has an HDR colour that looks like it. Where its pieces meet, method A's curve jumps by
    0.0005, which is a fifth of a level of 8 bits; the HDR colour comes back to a tenth of a level of 10."""
    sdr = all_colours(17)
    tone = ToneMapping(transfer, 1000)
    hdr = tone.pixels_to_hdr(sdr)
    seen = sdr > 6553
    assert np.abs(tone.pixels_to_sdr(hdr).astype(int) - sdr)[seen].max() / 257 < 0.25
    again = tone.pixels_to_hdr(tone.pixels_to_sdr(hdr))
    assert np.abs(again.astype(int) - hdr).max() / 65535 * 1023 < 0.1


def test_p3_is_brought_to_the_same_light() -> None:
    """Linear P3 D65 to BT.2020 by the matrix of SMPTE's chromaticities."""
    p3 = np.array(
        [[0.753833, 0.198597, 0.047570], [0.045744, 0.941777, 0.012479], [-0.001210, 0.017602, 0.983609]]
    )
    pixels = (all_colours(9) * 0.75).astype(np.uint16)
    light = np.clip(pq_light(pixels / 65535), 0, 1000) @ p3.T
    got = ToneMapping(PQ, 1000, 12).pixels_to_sdr(pixels)
    assert_same_light(got / 65535, expected_sdr(light, 1000))


def info_of(**changes: Any) -> StreamInfo:
    """A stream in PQ."""
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": PQ}
    plain = StreamInfo(64, 16, Fraction(1, 25), Fraction(25), "yuv420p10le", 10, **tags)  # type: ignore[arg-type]
    return replace(plain, **changes)


def test_which_light_is_white() -> None:
    display = (*[Fraction(1, 3)] * 9, Fraction(4000))
    assert peak_of(info_of()) == (1000, "nominal")
    assert peak_of(info_of(mastering_display=display)) == (4000, "its mastering display")
    assert peak_of(info_of(mastering_display=display, light_levels=(1200, 300))) == (1200, "its MaxCLL")
    assert peak_of(info_of(mastering_display=display, light_levels=(0, 0))) == (4000, "its mastering display")
    assert peak_of(info_of(light_levels=(20, 5)))[0] == 100
    assert peak_of(info_of(color_trc=HLG, light_levels=(1200, 300))) == (1000, "nominal")


def test_white_of_ten_bits_is_white() -> None:
    """swscale makes 65283 of it and 943 of 65535, so that networks saw all deep videos a little too dark."""
    info = info_of(color_trc=14)
    frame = av.VideoFrame(64, 16, "yuv420p10le")
    for plane, level in zip(frame.planes, (940, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, level, np.uint16).tobytes())
    pixels = ToPixels(info, 64, 16)(frame)
    assert np.abs(pixels.astype(int) - 65535).max() <= 3
    result = FromPixels(info, 64, 16, "yuv420p10le")(np.full_like(pixels, 65535), 0, info.time_base, 1)
    assert set(np.frombuffer(memoryview(result.planes[0]), np.uint16)) == {940}


LIGHTS = (0.0, 1.0, 10.0, 50.0, 203.0, 600.0, 1000.0)
COLOURS = ((1.0, 1.0, 1.0), (0.5, 0.38, 0.24), (0.3, 0.48, 0.6), (0.36, 0.6, 0.36))
"""Grey, and colours that SDR can show up to the brightest of `LIGHTS`."""

CELL = 16


def patches() -> Array:
    """Light in linear BT.2020 (H, W, 3) in cd/m2: patches of CELL pixels, colours down and light across."""
    cells = np.array(COLOURS)[:, None] * np.array(LIGHTS)[None, :, None]
    return cells.repeat(CELL, 0).repeat(CELL, 1)


def ycbcr(rgb: Array, luma: Array) -> Array:
    """RGB signals (..., 3) as limited 10-bit Y'CbCr."""
    y = rgb @ luma
    blue, red = (rgb[..., 2] - y) / (2 - 2 * luma[2]), (rgb[..., 0] - y) / (2 - 2 * luma[0])
    return np.stack([64 + 876 * y, 512 + 896 * blue, 512 + 896 * red])


def hdr_signal(light: Array, transfer: int) -> Array:
    """The HDR signal of light in cd/m2; HLG through the inverse OOTF of a display of 1000 cd/m2."""
    if transfer == PQ:
        return pq_signal(light)
    display = light / 1000
    scene = display * np.maximum(display @ LUMA, 1e-9)[..., None] ** (1 / 1.2 - 1)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def make_hdr(path: Path, transfer: int, codec: str = "ffv1", options: dict[str, str] | None = None) -> Path:
    """Three frames of `patches`, stored without loss in 4:4:4 so that no chroma is averaged."""
    stored = ycbcr(hdr_signal(patches(), transfer), LUMA).round().astype(np.uint16)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = stored.shape[2], stored.shape[1], "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries = 9, 1, 9
        context.color_trc = transfer
        for number in range(3):
            frame = av.VideoFrame(stored.shape[2], stored.shape[1], "yuv444p10le")
            for plane, values in zip(frame.planes, stored, strict=True):
                rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                rows[:, : plane.width] = values
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_patches(path: Path) -> tuple[Array, tuple[int, int, int]]:
    """The planes (3, H, W) of a video's last frame, without the borders of patches; and its tags."""
    with av.open(str(path)) as container:
        *_, frame = container.decode(video=0)
    planes = [
        np.frombuffer(memoryview(plane), np.uint16).reshape(plane.height, -1)[:, : plane.width]
        for plane in frame.planes
    ]
    tags = int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)
    return np.stack(planes), tags


def convert_by(
    as_planes: bool, source: Path, output: Path, options: VideoOptions, engine: EngineOptions
) -> Any:
    plan = plan_video(source, output, "identity", options, engine)
    return run_video(choose_route(plan, "cpu", as_planes), Silent())


FFV1 = VideoOptions(codec="ffv1")


@pytest.mark.parametrize("as_planes", [False, True])
@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_a_video_becomes_sdr(
    transfer: int, name: str, as_planes: bool, tmp_path: Path, exact: EngineOptions
) -> None:
    """10-bit samples against the formulas. The source is rounded to 10 bits, worth up to 2 levels where the
    curve is steep, and RGB and the result are rounded once more each."""
    source = make_hdr(tmp_path / "in.mkv", transfer)
    report = convert_by(as_planes, source, tmp_path / "out.mkv", FFV1, exact)
    got, tags = read_patches(tmp_path / "out.mkv")
    wanted = ycbcr(expected_sdr(patches(), 1000), np.array([0.2126, 0.7152, 0.0722]))
    assert tags == (1, 1, 1)
    assert np.abs(got - wanted).max() <= 4
    assert got[0].min() == 64, "black is black"
    assert abs(int(got[0, :CELL].max()) - 940) <= 1, "the peak is white"
    line = (
        f"HDR ({name}) becomes SDR (BT.709): tone mapped by BT.2446 method A, 1000 cd/m2 (nominal) as white; "
        'use `hdr="keep"` for a result in HDR'
    )
    assert report.warnings == [line]
    assert report.hdr == {"mode": "tonemap", "transfer": name, "peak": 1000, "peak_from": "nominal"}


@pytest.mark.parametrize("as_planes", [False, True])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_video_stays_hdr(transfer: int, as_planes: bool, tmp_path: Path, exact: EngineOptions) -> None:
    """Through SDR and back: all patches can be shown by it, so that only the rounding to 10 bits remains."""
    source = make_hdr(tmp_path / "in.mkv", transfer)
    asked = replace(FFV1, hdr="keep")
    report = convert_by(as_planes, source, tmp_path / "out.mkv", asked, exact)
    got, tags = read_patches(tmp_path / "out.mkv")
    wanted = ycbcr(hdr_signal(patches(), transfer), LUMA)
    assert tags == (9, 9, transfer)
    assert np.abs(got - wanted).max() <= 1.5
    assert report.hdr["mode"] == "keep"
    assert "is kept" in report.warnings[0]


@pytest.mark.parametrize("as_planes", [False, True])
@pytest.mark.parametrize("mode", ["tonemap", "keep"])
def test_hdr_is_finished_in_the_colours_of_the_result(
    mode: str, as_planes: bool, tmp_path: Path, exact: EngineOptions
) -> None:
    """Strength 0 gives the source as it is without a look. As pixels it passes through 16 bits once more."""
    source = make_hdr(tmp_path / "in.mkv", PQ)
    options = replace(FFV1, hdr=mode)
    convert_by(as_planes, source, tmp_path / "plain.mkv", options, exact)
    convert_by(as_planes, source, tmp_path / "none.mkv", replace(options, strength=0.0), exact)
    (plain, tags), (got, its_tags) = (read_patches(tmp_path / name) for name in ("plain.mkv", "none.mkv"))
    assert tags == its_tags
    assert np.abs(got.astype(int) - plain.astype(int)).max() <= 2


def test_both_halves_of_a_comparison_are_sdr(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_hdr(tmp_path / "in.mkv", PQ)
    convert_video(source, tmp_path / "out.mkv", "identity", replace(FFV1, compare="side"), exact)
    got, tags = read_patches(tmp_path / "out.mkv")
    half = got.shape[2] // 2
    assert tags == (1, 1, 1)
    assert np.abs(got[:, :, :half].astype(int) - got[:, :, half:]).max() <= 3


HDR10 = {
    "x265-params": "log-level=error:max-cll=600,400:master-display="
    "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)",
    "crf": "1",
}
MASTERING = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450, 1, 10000000)


def test_metadata_is_used_and_dropped_or_carried(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_hdr(tmp_path / "in.mp4", PQ, "libx265", HDR10)
    report = convert_video(source, tmp_path / "sdr.mp4", "identity", engine_options=exact)
    assert report.hdr == {"mode": "tonemap", "transfer": "PQ", "peak": 600, "peak_from": "its MaxCLL"}
    sdr = probe(tmp_path / "sdr.mp4")
    assert (sdr.color_trc, sdr.mastering_display, sdr.light_levels) == (1, (), ())
    keep = VideoOptions(hdr="keep", codec="h265")
    convert_video(source, tmp_path / "hdr.mp4", "identity", keep, exact)
    hdr, before = probe(tmp_path / "hdr.mp4"), probe(source)
    assert (hdr.color_trc, hdr.light_levels) == (PQ, (600, 400))
    assert (
        hdr.mastering_display
        == before.mastering_display
        == tuple(
            Fraction(above, below)
            for above, below in zip(MASTERING, (*[50000] * 8, 10000, 10000), strict=True)
        )
    )


def test_hdr_is_refused_if_asked(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_hdr(tmp_path / "in.mkv", HLG)
    with pytest.raises(InputError) as caught:
        plan_video(source, None, "identity", VideoOptions(hdr="refuse"), exact)
    assert str(caught.value) == (
        f'{source}: high dynamic range (HLG): use `hdr="tonemap"` to make SDR of it, or "keep"'
    )
    with pytest.raises(UsageError, match="use tonemap, keep, refuse"):
        plan_video(source, None, "identity", VideoOptions(hdr="best"), exact)


def test_dry_run_says_what_becomes_of_hdr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_hdr(tmp_path / "in.mkv", PQ)
    arguments = ["video", str(source), "--model", "identity", "--device", "cpu", "--hdr", "keep", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert (
        "note       HDR (PQ) is kept: the network sees it as SDR (BT.2446 method A, 1000 cd/m2 (nominal) as "
        "white), and its result is expanded to PQ by the inverse; colours outside BT.709 are clipped"
    ) in capsys.readouterr().out
