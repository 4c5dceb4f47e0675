"""The README's tables come from the kept results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import reliability_page
from benchmarks.readme_tables import BEGIN, END, gpu_tables, tables

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_has_the_tables_of_the_kept_results() -> None:
    page = (ROOT / "README.md").read_text()
    assert page.split(BEGIN)[1].split(END)[0] == f"\n\n{tables()}", "run `make readme`"


def test_the_reliability_page_is_that_of_the_kept_results() -> None:
    assert reliability_page.PAGE.read_text() == reliability_page.page(), "run `make reliability`"


def test_every_script_and_every_result_is_on_the_benchmarks_page() -> None:
    folder = ROOT / "benchmarks"
    page = (folder / "README.md").read_text()
    scripts = [path for path in folder.glob("*/*.py") if "__main__" in path.read_text()]
    for script in scripts:
        name = str(script.relative_to(folder))
        assert f"`{name}" in page or name == "gpu/task.py", f"{name} is missing"
    for result in (folder / "results").glob("*.json"):
        named = result.name if not result.name.startswith("training_") else "training_RUN.json"
        assert f"`{named}`" in page, f"{result.name} is missing"


def test_the_figures_of_the_gpu_job_become_tables() -> None:
    def passed(**rows: Any) -> dict[str, Any]:
        return {"state": "passed", "rows": rows}

    speed = {"width": 1920, "height": 1080, "batch": 1, "problem": None}
    eager = {**speed, "engine": "eager", "precision": "fp32", "convert": 12.34, "share": 0.9}
    fast = {**speed, "engine": "compile", "precision": "fp16", "convert": 87.6, "share": 0.5}
    video = {
        "work_size": [640, 360],
        "frames_per_second": 123.4,
        "network_share": 0.25,
        "busiest": "encode",
    }
    tasks = {
        "machine": passed(host={"processor": "CPU", "gpu": "Card 1", "cores": 16}),
        "speed/resnet9-ngf64 1080p eager fp32": passed(one=eager),
        "speed/resnet9-ngf64 1080p compile fp16": passed(one=fast),
        "speed/resnet9-ngf64 720p compile fp16": {"state": "late", "rows": {"one": fast}},
        "video/planes": passed(video=video),
        "training/h2_24_64_6_128 published": passed(step={"images_per_second": 10.0}),
        "training/h2_24_64_6_128 ours bf16 compile": passed(step={"images_per_second": 35.0}),
        "training/resnet9_ngf64_256 published": passed(step={"images_per_second": 5.0}),
    }
    lines = list(gpu_tables({"date": "2026-11-25", "tasks": tasks}))
    assert [line for line in lines if line.startswith("| ")] == [
        "| resnet9-ngf64 | 1920x1080 |",
        "| eager fp32 | 12.3 (90%) |",
        "| compile fp16 | 87.6 (50%) |",
        "| frames travel | network sees | frames/s | network's share of the work | busiest |",
        "| as YUV planes, converted on the card | 640x360 | 123 | 25% | encode |",
        "| networks | published, float32 | ours, bf16 compile | times faster |",
        "| `h2_24_64_6_128` | 10 | 35 | 3.50 |",
    ]
    assert "A video of 1920x1080 with photo2monet (Card 1, 16 cores, 2026-11-25):" in lines
