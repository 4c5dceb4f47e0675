"""Make docs/reliability.md anew from the files under results/: `make reliability`.

What has not been measured has no row. A row has the number of tries that were made, whatever was planned.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = ROOT / "tests" / "data" / "fuzz"
PAGE = ROOT / "docs" / "reliability.md"

FUZZED = {
    "pictures": ("png", "jpeg", "webp", "tiff", "avif", "bmp"),
    "animations and videos": ("gif", "mp4", "mkv", "webm", "ts"),
    "model files and checkpoints": ("model", "safetensors", "checkpoint", "old checkpoint"),
    "model files and checkpoints, guided by coverage (atheris)": ("by coverage",),
}


WRONG = {
    "Wrong in cases.py:_check_refusal": "refused in a line that did not name the file",
    "memory": "more memory than allowed",
}
"""What the fuzzer calls a find, in words."""


def result(name: str) -> dict[str, Any] | None:
    """A kept result, None if it has not been measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def place(data: dict[str, Any]) -> str:
    """The machine, the day and the load of a result, in words."""
    machine = data["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {data['date']}; "
        f"the load was {machine['load_before']:.0f} at the end"
    )


def paragraph(text: str) -> Iterator[str]:
    """A text in lines, with an empty one behind it."""
    yield from textwrap.wrap(" ".join(text.split()), 120, break_on_hyphens=False)
    yield ""


def faults(data: dict[str, Any]) -> Iterator[str]:
    """Kills and interrupts: a row for each kind, and what went wrong in words."""
    yield "## Kills and interrupts"
    yield ""
    yield from paragraph(f"""
        A signal comes at a random moment of the command. A killed `video` is given again until it ends,
        and its result must be packet for packet that of an undisturbed run. An interrupted command must
        end within {data["limit_seconds"]:g} s with exit code 130, or by the signal itself, which a
        shell shows as 130. It must leave no half-written file, no temporary file and no process. A
        command that had ended before the signal came is not counted as a try.
    """)
    yield "| fault | tries | went wrong | slowest end |"
    yield "|---|---|---|---|"
    for name, row in data["tries"].items():
        slowest = f"{row['slowest_seconds']:.2f} s" if row["slowest_seconds"] else ""
        yield f"| {name} | {row['tries']:,} | {len(row['wrong'])} | {slowest} |"
    yield ""
    if kills := data["tries"].get("kills of video"):
        yield f"{kills['went_on']:,} of the killed runs had gone on from segments of the run before them."
        yield ""
    listed = [
        f"- {name}: {wrong.splitlines()[0]}" for name, row in data["tries"].items() for wrong in row["wrong"]
    ]
    if listed:
        yield "What went wrong when it was tried:"
        yield ""
        yield from [*listed, ""]
    for note in data.get("notes", []):
        yield from paragraph(note)
    yield from paragraph(f"Measured on {place(data)} (`benchmarks/converter/reliability.py`).")


def fuzzing(data: dict[str, Any]) -> Iterator[str]:
    """Damaged and hostile files: a row for each sort of file, and the finds."""
    yield "## Damaged and hostile files"
    yield ""
    yield from paragraph(f"""
        Small valid files are changed in a way that knows their format: lengths and checksums fit again,
        so that the change reaches the decoder. A file must be converted or refused in one line that
        names it. A traceback, a crash, more than {data["limits"]["processor_seconds"]} s of the
        processor, more than {data["limits"]["memory_bytes"] // 2**20} MiB of memory and anything left
        behind are wrong.
    """)
    yield "| files | cases | converted | refused | went wrong |"
    yield "|---|---|---|---|---|"
    for title, kinds in FUZZED.items():
        rows = [data["kinds"][kind] for kind in kinds if kind in data["kinds"]]
        sums = [sum(row[outcome] for row in rows) for outcome in ("converted", "refused", "wrong")]
        if rows:
            yield f"| {title} | {sum(sums):,} | " + " | ".join(f"{number:,}" for number in sums) + " |"
    yield f"| all | {data['cases']:,} | | | {sum(row['wrong'] for row in data['kinds'].values()):,} |"
    yield ""
    for find in data["finds"]:
        what = WRONG.get(find["what"], find["what"])
        yield f"- {find['kind']}, cases: {find['times']}, {what} (`{find['file']}`)."
        if (KEPT / find["file"]).exists():
            yield "  This is mended, and the file is in `tests/data/fuzz`."
    yield ""
    yield from paragraph(f"""
        Measured on {place(data)} (`benchmarks/fuzz/run.py`). `make fuzz` tries ten minutes of new
        cases. What it finds goes into `tests/data/fuzz`, where a test and later runs begin with it.
    """)


def segments(data: dict[str, Any]) -> Iterator[str]:
    """What encoding in segments costs."""
    yield "## The cost of segments"
    yield ""
    yield from paragraph(f"""
        A video is encoded in closed segments, so that a broken run can go on. Differences are those to
        a single pass of the same conversion. With the default of {data["default_frames"]} frames a
        segment, the video must not be more than {data["limit_percent"]:g}% larger, and PSNR and SSIM
        not more than that smaller.
    """)
    yield from segments_table(data)
    yield from paragraph("""
        A segment begins with a keyframe, which costs little where the encoder would soon have set one. The
        drawn noise hardly moves, so its keyframes are fifty times as large as its other frames.
    """)


def real_segments(data: dict[str, Any]) -> Iterator[str]:
    """The same of real videos."""
    yield "The same of real videos, which have cuts:"
    yield ""
    yield from segments_table(data)


def segments_table(data: dict[str, Any]) -> Iterator[str]:
    """A row for each video and length of segments, and what misses the limit."""
    yield "| video | frames | frames a segment | size | PSNR | SSIM |"
    yield "|---|---|---|---|---|---|"
    for row in data["rows"]:
        for length, found in row["segments"].items():
            differences = [f"{found[f'{name}_percent']:+.3f}%" for name in ("bytes", "psnr_db", "ssim")]
            title = f"{row['clip']} ({row['codec']})"
            yield f"| {title} | {found['frames']} | {length} | " + " | ".join(differences) + " |"
    yield ""
    for row in data["rows"]:
        found = row["segments"][str(data["default_frames"])]
        names = {"bytes": 1, "psnr_db": -1, "ssim": -1}  # the sign of what is worse
        if any(sign * found[f"{name}_percent"] > data["limit_percent"] for name, sign in names.items()):
            yield f"- Wrong: {row['clip']} misses the limit with {data['default_frames']} frames a segment"
    yield ""
    yield from paragraph(f"Measured on {place(data)} (`benchmarks/converter/segments.py`).")


def long_video(data: dict[str, Any]) -> Iterator[str]:
    """A long video: what grows, and whether sound stays with the picture."""
    yield "## A long video"
    yield ""
    yield from paragraph(f"""
        A video of {data["seconds"] / 60:g} minutes ({data["frames"]:,} frames of 64x48 with sound)
        flashes and clicks at the same moment of every tenth second. Early is a fifth of the way, late
        is the end, when the segments are joined.
    """)
    yield "| | early | late |"
    yield "|---|---|---|"
    yield f"| memory, growth from early to late | | {data['memory_growth_bytes'] / 2**20:+.1f} MiB |"
    for name in ("descriptors", "threads"):
        early, late = data[f"{name}_early_late"]
        yield f"| {name} | {early} | {late} |"
    before, after = data["in_the_source"], data["flash_before_click_seconds"]
    yield f"| flash to click in the source | {before['first']:g} s | {before['last']:g} s |"
    yield f"| flash to click in the result | {after['first']:g} s | {after['last']:g} s |"
    yield ""
    errors = data["largest_pts_error_seconds"]
    yield from paragraph(f"""
        Timestamps differ from the source by at most {errors["video"]:g} s in the picture and
        {errors["audio"]:g} s in the sound. Memory on the way, in MiB: {
        ", ".join(f"{one:.0f}" for one in data["memory_mib"])
    }.
    """)
    for wrong in data["wrong"]:
        yield f"- Wrong: {wrong}"
    yield ""
    yield from paragraph("""
        Joining the segments at the end opens more files. In a video of two hours, memory went up and down
        between 470 and 544 MiB after the first tenth, without a trend.
    """)
    yield from paragraph(f"Measured on {place(data)} (`benchmarks/converter/long_video.py`).")


SECTIONS = {
    "reliability": faults,
    "fuzz": fuzzing,
    "segments": segments,
    "segments_real": real_segments,
    "long_video": long_video,
}


def page() -> str:
    """The whole page, as Markdown."""
    lines = [
        "# Reliability",
        "",
        "`make reliability` writes this page from `benchmarks/results`. It shows each fault, how often it",
        "was tried, and what happened.",
        "",
    ]
    missing = []
    for name, section in SECTIONS.items():
        if data := result(name):
            lines += section(data)
        else:
            missing.append(name)
    if missing:
        lines += [f"Not measured yet: {', '.join(name.replace('_', ' ') for name in missing)}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
