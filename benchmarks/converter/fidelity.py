"""What a conversion keeps of a video: frames, times, streams, colours and tags, over many kinds of files.

Each case is converted with the `identity` model twice: with everything at its default (frames, times,
streams, tags) and into FFV1, which loses nothing, so that what remains is our way through RGB. Its planes are
compared with FFmpeg's own way through RGB and back (the scale filter, bicubic with accurate rounding). A
video that comes out upright has no such comparison: its chroma lies elsewhere then.

    python benchmarks/converter/fidelity.py [--clips FOLDER] [--name NAME]

`--clips` adds the videos of a folder, of which the first four seconds are converted. The exit code is 1 if a
case fails. It takes half a minute, and two more with a folder of clips.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cgconvert
from benchmarks.common import option_parser, save
from cgconvert.errors import CgconvertError
from tests.video.clips import NTSC, Clip, Facts, make_clip, read_facts

EXACT = cgconvert.EngineOptions(device="cpu", engine="eager", precision="fp32")
MOST_BIAS = 0.25
"""Mean difference of a plane from FFmpeg's way, in levels of 8 bits: rounding has no direction."""

MOST_DIFFERENCE = 1.0
"""Mean absolute difference likewise: both round twice, and filter chroma."""

BT709 = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
BT601 = {"colorspace": 5, "color_primaries": 5, "color_trc": 6, "color_range": 1}
BT2020 = {"colorspace": 9, "color_primaries": 9, "color_trc": 14, "color_range": 1}
FULL = {**BT709, "color_range": 2}
WRITTEN_AS = {".avi": ".mkv", ".ts": ".mp4"}
"""Containers that are read and not written, and what their results are written as here."""

VARIABLE = [0, 512, 1100, 1500, 2500, 2600, 3000, 3600, 4000, 6000, 6001, 9000]


@dataclass(frozen=True)
class Row:
    """One case: times in seconds, colours in levels of 8 bits; `failed` says what was not kept."""

    case: str
    frames_in: int
    frames_out: int
    largest_pts_error: float
    streams: str
    colour_bias: list[float]
    colour_difference: list[float]
    tags_kept: bool
    failed: list[str]


def cases() -> dict[str, tuple[str, Clip]]:
    """Every generated case: its suffix and its clip, by name."""
    plain = Clip()
    found: dict[str, tuple[str, Clip]] = {}

    def add(name: str, suffix: str, **changes: Any) -> None:
        found[name] = (suffix, replace(plain, **changes))

    for suffix in (".mp4", ".mkv", ".mov", ".ts", ".avi"):
        # AVI stores no times: the frames follow at the frame rate, and B-frames would have none of their own.
        avi = {"time_base": Fraction(1, 25), "step": 1, "options": {"bf": "0"}}
        base = avi if suffix == ".avi" else {}
        add(f"h264 in {suffix}", suffix, **base)
        if suffix != ".avi":
            add(f"h264 in {suffix} with sound", suffix, audio="aac")
    for name, tags in (("bt709", BT709), ("bt601", BT601), ("bt2020", BT2020), ("full range", FULL)):
        for pix_fmt in ("yuv420p", "yuv422p", "yuv444p"):
            add(f"h264 {pix_fmt} {name}", ".mp4", pix_fmt=pix_fmt, tags=tags)
    for name, base, step in (
        ("ntsc", 1 / NTSC, 1),
        ("1/90000", Fraction(1, 90000), 3003),
        ("1/600", Fraction(1, 600), 25),
        ("milliseconds", Fraction(1, 1000), 40),
    ):
        add(f"time base {name}", ".mp4", time_base=base, step=step)
    add("variable rate", ".mp4", pts=VARIABLE)
    add("variable rate in mkv", ".mkv", time_base=Fraction(1, 1000), pts=[0, 33, 70, 101, 300, 301, 340, 390])
    add("begins late", ".mp4", pts=[5120 + 512 * index for index in range(12)], audio="aac")
    add("no b-frames", ".mp4", options={"bf": "0"})
    add("many b-frames", ".mp4", frames=40, options={"bf": "8", "b-pyramid": "normal"})
    add("one frame", ".mp4", frames=1)
    for angle in (90, 180, 270):
        add(f"rotated by {angle}", ".mp4", rotation=angle)
    add("odd sizes", ".mp4", width=97, height=63, pix_fmt="yuv444p")
    add("odd sizes, subsampled", ".mkv", width=97, height=63, codec="ffv1", options={})
    add("sound begins late", ".mp4", audio="aac", audio_offset=0.2)
    add("chapters and a title", ".mkv", chapters=True, metadata={"title": "A title"})
    add("an attachment", ".mkv", attachment=b"a note")
    add("h265", ".mp4", codec="libx265", options={"x265-params": "log-level=none"})
    add(
        "h265 10 bit",
        ".mp4",
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": "log-level=none"},
    )
    add("h264 10 bit", ".mp4", pix_fmt="yuv420p10le")
    # HDR that is kept. Nearly grey, since SDR has fewer bright colours, and what it lacks is clipped.
    hdr10 = "log-level=none:max-cll=4000,400:master-display=" + (
        "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(40000000,50)"
    )
    for name, transfer in (("pq", 16), ("hlg", 18)):
        add(
            f"hdr {name}",
            ".mp4",
            codec="libx265",
            pix_fmt="yuv420p10le",
            options={"crf": "12", "x265-params": hdr10 if name == "pq" else "log-level=none"},
            tags={"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer},
            saturation=0.1,
        )
    add("vp8", ".webm", codec="libvpx", time_base=Fraction(1, 1000), step=40, options={"crf": "10"})
    add("vp9", ".webm", codec="libvpx-vp9", time_base=Fraction(1, 1000), step=40, options={"crf": "10"})
    add("vp9 with opus", ".webm", codec="libvpx-vp9", time_base=Fraction(1, 1000), step=40, audio="libopus")
    add("av1", ".mp4", codec="libsvtav1", options={"preset": "12"})
    add("prores", ".mov", codec="prores_ks", pix_fmt="yuv422p10le", options={})
    add("ffv1", ".mkv", codec="ffv1", options={})
    add("ffv1 rgb", ".mkv", codec="ffv1", pix_fmt="bgr0", options={})
    add("mpeg4", ".mp4", codec="mpeg4", time_base=Fraction(1, 25), step=1, options={"qscale": "2"})
    add("mpeg2 in ts", ".ts", codec="mpeg2video", time_base=Fraction(1, 25), step=1, options={})
    add("motion jpeg", ".mov", codec="mjpeg", pix_fmt="yuvj420p", options={})
    return found


def through_rgb(path: Path, seconds: float | None) -> list[list[np.ndarray]]:
    """The planes of every frame after FFmpeg's scale filter has taken them to RGB and back."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph: Any = None
        found = []
        for frame in container.decode(stream):
            if seconds is not None and frame.time is not None and frame.time - _start(stream) >= seconds:
                break
            if graph is None:
                deep = frame.format.components[0].bits > 8
                matrix = _matrix(frame)
                flags = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
                full = "pc" if frame.color_range == 2 or frame.format.name.startswith("yuvj") else "tv"
                graph = av.filter.Graph()
                steps = [
                    graph.add_buffer(template=stream),
                    graph.add("scale", f"{flags}:in_color_matrix={matrix}:in_range={full}:out_range=pc"),
                    graph.add("format", "rgb48le" if deep else "rgb24"),
                    graph.add("scale", f"{flags}:out_color_matrix={matrix}:in_range=pc:out_range={full}"),
                    graph.add("format", frame.format.name.replace("yuvj", "yuv")),
                    graph.add("buffersink"),
                ]
                for one, other in pairwise(steps):
                    one.link_to(other)
                graph.configure()
            graph.push(frame)
            found.append(planes_of(graph.pull()))
    return found


def _start(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def _matrix(frame: av.VideoFrame) -> str:
    """The matrix of a frame; without a tag it follows from the height, as in players."""
    known = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020"}
    return known.get(int(frame.colorspace), "bt709" if frame.height >= 720 else "bt601")


def planes_of(frame: av.VideoFrame) -> list[np.ndarray]:
    """The samples of each plane as float in levels of 8 bits."""
    bits = frame.format.components[0].bits
    dtype = np.uint8 if bits <= 8 else np.uint16
    rows = []
    for plane in frame.planes:
        samples = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        width = plane.width * (4 if frame.format.name in ("bgr0", "0rgb", "rgb0") else 1)
        rows.append(samples[:, :width].astype(np.float32) / 2 ** (bits - 8))
    return rows


def _is_turned(name: str, before: Facts, after: Facts) -> bool:
    return before.size != after.size or name.startswith("rotated")


def convert(source: Path, output: Path, seconds: float | None, **options: Any) -> Any:
    return cgconvert.convert_video(
        source, output, "identity", cgconvert.VideoOptions(end=seconds, hdr="keep", **options), EXACT
    )


def look_at(name: str, source: Path, folder: Path, seconds: float | None = None) -> Row:
    """Convert a file both ways and compare."""
    failed: list[str] = []
    report = convert(source, folder / f"default{WRITTEN_AS.get(source.suffix, source.suffix)}", seconds)
    converted = Path(report.output)
    index = next(s["index"] for s in report.streams if s["action"] == "converted")
    before = read_facts(source, index, pictures=False)
    after_index = [s["index"] for s in report.streams if s["action"] in ("converted", "copied")].index(index)
    after = read_facts(converted, after_index, pictures=False)
    count = len(before.pts)
    if seconds is not None:
        count = sum(pts - before.pts[0] < Fraction(str(seconds)) for pts in before.pts)
    shift = before.pts[0] - after.pts[0] if converted.suffix in (".mkv", ".webm") else Fraction(0)
    error = max(
        (abs(a - b - shift) for a, b in zip(before.pts[:count], after.pts, strict=False)), default=Fraction(0)
    )
    if len(after.pts) != count:
        failed.append(f"{count} frames became {len(after.pts)}")
    bound = Fraction(1, 2000) if converted.suffix in (".mkv", ".webm") else Fraction(0)
    if error > bound:  # Matroska's own clock ticks in milliseconds
        failed.append(f"a time is off by {float(error):.6f} s")
    dropped = [s for s in report.streams if s["action"] == "dropped"]
    if dropped:
        failed.append(f"dropped {[s['kind'] for s in dropped]}")
    # No tag of the range (0) means limited range (1): most encoders leave it out there.
    wanted, got = list(before.colours), list(after.colours)
    wanted[1], got[1] = wanted[1] or 1, got[1] or 1
    tags = before.frame_format.startswith(("bgr", "rgb", "gbr")) or all(
        one in (2, other) for one, other in zip(wanted, got, strict=True)
    )
    if not tags:
        failed.append(f"tags {before.colours} became {after.colours}")
    bias: list[float] = []
    difference: list[float] = []
    if not _is_turned(name, before, after) and not before.frame_format.startswith(("bgr", "rgb", "gbr")):
        lossless = folder / "lossless.mkv"
        convert(source, lossless, seconds, codec="ffv1")
        reference = through_rgb(source, seconds)
        with av.open(str(lossless)) as container:
            own = [planes_of(frame) for frame in container.decode(container.streams.video[0])]
        for plane in range(len(reference[0])):
            off = [a[plane] - b[plane] for a, b in zip(own, reference, strict=True)]
            bias.append(round(float(np.mean([d.mean() for d in off])), 4))
            difference.append(round(float(np.mean([np.abs(d).mean() for d in off])), 4))
        if max(map(abs, bias)) > MOST_BIAS or max(difference) > MOST_DIFFERENCE:
            failed.append(f"colours are off by {bias} on average")
    kept = sum(s["action"] in ("converted", "copied", "rewritten") for s in report.streams)
    return Row(
        name,
        count,
        len(after.pts),
        float(error),
        f"{kept} of {len(report.streams)}",
        bias,
        difference,
        tags,
        failed,
    )


def main() -> None:
    parser = option_parser(__doc__, "fidelity")
    parser.add_argument("--clips", type=Path, help="a folder of videos to look at as well")
    parser.add_argument("--only", help="only cases with this in their name")
    arguments: argparse.Namespace = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        wanted: list[tuple[str, Path | tuple[str, Clip]]] = list(cases().items())
        if arguments.clips:
            wanted += [(path.name, path) for path in sorted(arguments.clips.iterdir())]
        for number, (name, what) in enumerate(wanted):
            if arguments.only and arguments.only not in name:
                continue
            folder = Path(temporary) / str(number)
            folder.mkdir()
            try:
                if isinstance(what, Path):
                    row = look_at(name, what, folder, 4.0)
                else:
                    row = look_at(name, make_clip(folder / f"in{what[0]}", what[1]), folder)
            except CgconvertError as error:
                row = Row(name, 0, 0, 0.0, "", [], [], False, [str(error)])
            rows.append(row)
            print(
                f"{row.case:32} {row.frames_in:4} {row.frames_out:4} {row.largest_pts_error:.6f} s  "
                f"{row.streams:8} {row.colour_bias}  {'; '.join(row.failed) or 'kept'}",
                flush=True,
            )
    failed = [row for row in rows if row.failed]
    print(f"{len(rows) - len(failed)} of {len(rows)} cases kept everything")
    if not arguments.only:
        print(save(arguments.name or "fidelity", {"rows": [asdict(row) for row in rows]}))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
