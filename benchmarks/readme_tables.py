"""Make the README's tables anew from the files under results/: `make readme`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = "<!-- tables: made by `make readme` from benchmarks/results -->"
END = "<!-- end of tables -->"
WAYS = {
    "rgb": "as RGB, converted on the processor",
    "planes": "as YUV planes, converted on the card",
    "nvdec": "as YUV planes, decoded on the card",
    "nvenc": "as YUV planes, decoded and encoded on the card",
    "whole-frame": "as YUV planes, converted on the card",
}
"""The GPU job's ways of a video, in words."""


def result(name: str) -> dict[str, Any] | None:
    """A kept result, None if it has not been measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def place(data: dict[str, Any]) -> str:
    """The machine and the day of a result, in words."""
    machine = data["machine"]
    return f"{machine.get('gpu', machine['processor'])}, {machine['cores']} cores, {data['date']}"


def engines_tables(data: dict[str, Any], large: dict[str, Any] | None) -> Iterator[str]:
    """Pictures a second, a table for each model: a row for each engine and precision, sizes as columns."""
    rows = [*data["results"], *(large["results"] if large else [])]
    rows = sorted((row for row in rows if not row.get("problem")), key=lambda row: row["convert"])
    order = [(row["model"], row["engine"], row["precision"]) for row in data["results"]]
    batches = " or ".join(map(str, sorted({row["batch"] for row in rows})))
    yield f"Pictures a second from pixels to pixels, {batches} at a time, without the time to build the"
    yield f"engine ({place(data)}). In"
    yield "brackets: the share of what a large convolution reaches on this machine in the same precision."
    for model in dict.fromkeys(model for model, _, _ in order):
        mine = [row for row in rows if row["model"] == model]
        sizes = sorted({(row["width"], row["height"]) for row in mine})
        yield ""
        yield f"| {model} | " + " | ".join(f"{width}x{height}" for width, height in sizes) + " |"
        yield "|---|" + "---|" * len(sizes)
        cells = {  # the last, which is the fastest, stays
            (row["engine"], row["precision"], row["width"], row["height"]): _rate_and_share(row)
            for row in mine
        }
        for engine, precision in dict.fromkeys((e, p) for name, e, p in order if name == model):
            found = [cells.get((engine, precision, *size), "") for size in sizes]
            yield f"| {engine} {precision} | " + " | ".join(found) + " |"
    yield ""


def _rate_and_share(row: dict[str, Any]) -> str:
    share = f" ({100 * row['share']:.0f}%)" if row.get("share") else ""
    return f"{row['convert']:.3g}{share}"


def peers_table(folder: dict[str, Any] | None, video: dict[str, Any] | None) -> Iterator[str]:
    """How many times faster than the usual loops, whole process to whole process."""
    known = [data for data in (folder, video) if data]
    yield "Against the usual loops with the same weights and files: whole processes that run in turn, medians"
    yield f"of the pairs ({place(known[0])}):"
    yield ""
    yield "| what | the usual loop | ours | times faster | by processor time | pairs |"
    yield "|---|---|---|---|---|---|"
    rows = (
        (folder, "folder", "PIL, eager float32, one picture at a time"),
        (video, "video", "OpenCV, ONNX Runtime float32 (loses the sound)"),
    )
    for data, what, usual in rows:
        if data is None:
            continue
        for variant, ratios in data["median"].items():
            subject = f"{what} of {data['pictures']} pictures {data['size']}" if "pictures" in data else what
            figures = f"{ratios['ratio']:.2f} | {ratios['cpu_ratio']:.2f} | {len(data['pairs'][variant])}"
            yield f"| {subject}, {data['model']} | {usual} | {variant} | {figures} |"
    yield ""


def training_table(data: dict[str, Any], ours: str = "ours bf16") -> Iterator[str]:
    """How many times faster than the published training step."""
    yield f"A CycleGAN training step against the published one, images a second ({place(data)}):"
    yield ""
    yield f"| networks | published, float32 | {ours.replace(' ', ', ', 1)} | times faster |"
    yield "|---|---|---|---|"
    for case, found in data["results"].items():
        published, mine = found["published"], found[ours]
        rates = f"{published['images_per_second']:.2g} | {mine['images_per_second']:.2g}"
        yield f"| `{case}` | {rates} | {mine['speedup']:.2f} |"
    yield ""


def gpu_tables(data: dict[str, Any]) -> Iterator[str]:
    """What the GPU job measured: engines, a 1080p video by the ways that frames can take, a training step."""
    rows = {name: task["rows"] for name, task in data["tasks"].items() if task["state"] == "passed"}
    about = {"machine": rows["machine"]["host"], "date": data["date"]}
    speed = [
        {"model": name.removeprefix("speed/").split()[0], **row}
        for name, found in rows.items()
        if name.startswith("speed/")
        for row in found.values()
    ]
    if speed:
        yield from engines_tables({**about, "results": speed}, None)
    videos = {name: found["video"] for name, found in rows.items() if name.startswith("video/")}
    if videos:
        yield f"A video of 1920x1080 with photo2monet ({place(about)}):"
        yield ""
        yield "| frames travel | network sees | frames/s | network's share of the work | busiest |"
        yield "|---|---|---|---|---|"
    for name, found in videos.items():
        size = "x".join(map(str, found["work_size"]))
        figures = f"{found['frames_per_second']:.0f} | {100 * found['network_share']:.0f}%"
        yield f"| {WAYS[name.removeprefix('video/')]} | {size} | {figures} | {found['busiest']} |"
    if videos:
        yield ""
    steps: dict[str, dict[str, Any]] = {}
    for name, found in rows.items():
        if name.startswith("training/"):
            case, _, variant = name.removeprefix("training/").partition(" ")
            steps.setdefault(case, {})[variant] = found["step"]
    fast = "ours bf16 compile"
    whole = {case: found for case, found in steps.items() if {"published", fast} <= found.keys()}
    for found in whole.values():
        found[fast]["speedup"] = found[fast]["images_per_second"] / found["published"]["images_per_second"]
    if whole:
        yield from training_table({**about, "results": whole}, fast)


def videos_table(data: dict[str, Any]) -> Iterator[str]:
    """Real clips with everything at its default."""
    yield f"Videos with sound, every option at its default ({place(data)}):"
    yield ""
    yield "| clip | model | network sees | frames/s | network's share of the work | over the busiest thread |"
    yield "|---|---|---|---|---|---|"
    for clip, found in data["clips"].items():
        run = found["median_run"]
        seen = "x".join(map(str, run["work_size"]))
        figures = f"{run['frames_per_second']:.1f} | {100 * run['network_share']:.0f}%"
        yield f"| {clip} | {data['model']} | {seen} | {figures} | {found['over_busiest']:.2f} |"
    yield ""


def pipeline_lines(data: dict[str, Any]) -> Iterator[str]:
    """Overlap and memory."""
    overlap, memory = data["overlap"], data["memory"]
    engine = f"{overlap['engine']['engine']} {overlap['engine']['precision']}"
    yield f"A video of {overlap['clip']} with photo2monet at full size takes"
    yield f"{overlap['ratio_median']:.2f} times the time of its busiest stage alone ({engine}; {place(data)};"
    yield "1.0 is perfect overlap)."
    yield f"A video of 120 s takes {memory['ratio']:.2f} times the memory of one of 10 s"
    yield f"({memory['peak_mib']['120']:.0f} MiB at 320x180)."
    yield ""


def tables() -> str:
    """Everything that has been measured, as Markdown."""
    lines: list[str] = []
    pipeline, engines = result("pipeline"), result("engines")
    folder, video = result("against_peers_dir"), result("against_peers_video")
    if pipeline:
        lines += pipeline_lines(pipeline)
    if engines:
        lines += engines_tables(engines, result("engines_large"))
    if folder or video:
        lines += peers_table(folder, video)
    if videos := result("end_to_end"):
        lines += videos_table(videos)
    if training := result("train_step_cpu"):
        lines += training_table(training)
    if (gpu := result("gpu")) and not gpu["rehearsal"]:
        lines += gpu_tables(gpu)
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the two marks."""
    page = ROOT / "README.md"
    text = page.read_text()
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{BEGIN}\n\n{tables()}{END}{after}")
    print("README.md")


if __name__ == "__main__":
    main()
