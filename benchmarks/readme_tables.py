"""Makes the tables of the README anew from the results beside this file: `make readme`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = "<!-- tables: made by `make readme` from benchmarks/results -->"
END = "<!-- end of tables -->"


def result(name: str) -> dict[str, Any] | None:
    """A kept result, None if it has not been measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def place(data: dict[str, Any]) -> str:
    """The machine and the day of a result, in words."""
    machine = data["machine"]
    return f"{machine.get('gpu', machine['processor'])}, {machine['cores']} cores, {data['date']}"


def engines_table(data: dict[str, Any]) -> Iterator[str]:
    """Pictures a second: a row for each engine and precision, a column for each model and size."""
    rows = [row for row in data["results"] if row["batch"] == 1 and not row.get("problem")]
    columns = list(dict.fromkeys((row["model"], row["width"], row["height"]) for row in rows))
    yield f"Pictures a second, one at a time, pixels to pixels ({place(data)}):"
    yield ""
    yield "| engine | precision | " + " | ".join(f"{m} {w}x{h}" for m, w, h in columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for engine, precision in dict.fromkeys((row["engine"], row["precision"]) for row in rows):
        cells = []
        for column in columns:
            found = [
                row["convert"]
                for row in rows
                if (row["engine"], row["precision"]) == (engine, precision)
                and (row["model"], row["width"], row["height"]) == column
            ]
            cells.append(f"{found[0]:.3g}" if found else "")
        yield f"| {engine} | {precision} | " + " | ".join(cells) + " |"
    yield ""


def peers_table(folder: dict[str, Any] | None, film: dict[str, Any] | None) -> Iterator[str]:
    """How many times faster than the usual loops, whole process to whole process."""
    yield "Against the usual loops, process to process, the same weights and files, on a machine that was not"
    yield "idle; few pairs, so take these as provisional (the processor ratio suffers less from neighbours):"
    yield ""
    yield "| what | the usual loop | ours | times faster | by processor time | pairs |"
    yield "|---|---|---|---|---|---|"
    rows = (
        (folder, "folder", "PIL, eager float32, one picture at a time"),
        (film, "film", "OpenCV, ONNX Runtime float32 (loses the sound)"),
    )
    for data, what, usual in rows:
        if data is None:
            continue
        for variant, ratios in data["median"].items():
            subject = f"{what} of {data['pictures']} pictures {data['size']}" if "pictures" in data else what
            figures = f"{ratios['ratio']:.2f} | {ratios['cpu_ratio']:.2f} | {len(data['pairs'][variant])}"
            yield f"| {subject}, {data['model']} | {usual} | {variant} | {figures} |"
    yield ""


def pipeline_lines(data: dict[str, Any]) -> Iterator[str]:
    """Overlap and memory."""
    overlap, memory = data["overlap"], data["memory"]
    engine = f"{overlap['engine']['engine']} {overlap['engine']['precision']}"
    yield f"A film of {overlap['clip']} with photo2monet takes {overlap['ratio_median']:.2f} times the"
    yield f"time of its busiest stage alone ({engine}; {place(data)}; 1.0 is perfect overlap)."
    yield f"A film of 120 s takes {memory['ratio']:.2f} times the memory of one of 10 s"
    yield f"({memory['peak_mib']['120']:.0f} MiB at 320x180)."
    yield ""


def tables() -> str:
    """Everything that has been measured, as Markdown."""
    lines: list[str] = []
    pipeline, engines = result("pipeline"), result("engines")
    folder, film = result("against_peers_dir"), result("against_peers_film")
    if pipeline:
        lines += pipeline_lines(pipeline)
    if engines:
        lines += engines_table(engines)
    if folder or film:
        lines += peers_table(folder, film)
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
