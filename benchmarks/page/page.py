"""The page: how long it takes to open, to change a frame, and what it costs while nothing is done.

    python benchmarks/page/page.py [--name NAME] [--rounds N]

A clip of 640x360 is drawn, and `cgconvert ui` is started for its folder. Headless Chromium opens the page and
chooses the clip. "start_seconds" are those from the command to the line with the address, and "open_seconds"
those from there to the list of files. "first_frame_seconds" loads the model. Each of "changes" is the time in
seconds from an input (strength, strokes, time, look) to the changed frame on the page. Those of a look or of
strokes are the second ones, after what they load is loaded, as in "first_changes". "idle" is the processor
time in seconds that the server and the page take in some seconds without any input.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from benchmarks.page.scene import write_clip

IDLE_SECONDS = 30
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

WATCH = """(() => { window.painted = 0; new MutationObserver(() => { window.painted = performance.now(); })
.observe(document.getElementById("after"), { attributeFilter: ["src"] }); })()"""
SET = """([id, value]) => { const one = document.getElementById(id); one.value = value; window.painted = 0;
window.asked = performance.now(); one.dispatchEvent(new Event("input")); }"""
CHOOSE = """(name) => { window.painted = 0; window.asked = performance.now();
document.querySelector(`#looks input[value="${name}"]`).click(); }"""


def processor_seconds(pid: int) -> float:
    """Processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(page: Any, script: str) -> None:
    """Wait until a script is true. The page's policy forbids Playwright's own way."""
    end = time.monotonic() + 120
    while not page.evaluate(script):
        if time.monotonic() > end:
            raise RuntimeError(f"{script}: {page.inner_text('body')}")
        time.sleep(0.02)


def change(page: Any, script: str, value: Any) -> float:
    """Seconds from an input to the frame that it changes."""
    page.evaluate(script, value)
    wait_for(page, "window.painted > 0 && document.getElementById('busy').hidden")
    milliseconds: float = page.evaluate("window.painted - window.asked")
    wait_for(page, "!document.getElementById('start').disabled")
    time.sleep(0.3)  # what follows a change, such as the plan, is no part of the next one
    return round(milliseconds / 1000, 3)


def changes(page: Any, looks: list[str], number: int) -> dict[str, float]:
    """Each kind of change, with values that no round before has had."""
    return {
        "strength": change(page, SET, ["strength", str(0.5 + 0.05 * (number % 9))]),
        "strokes": change(page, SET, ["stroke", ("large", "medium")[number % 2]]),
        "time": change(page, SET, ["time", str(0.5 + 0.2 * number)]),
        "look": change(page, CHOOSE, looks[number % 2]),
    }


def idle(page: Any, browser: Any, pid: int) -> dict[str, float]:
    """Processor time of the server and of the page's main thread while nothing is done."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def task_seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    time.sleep(3)  # what the last change has left to do
    server, tab = processor_seconds(pid), task_seconds()
    time.sleep(IDLE_SECONDS)
    return {
        "seconds": IDLE_SECONDS,
        "server_processor_seconds": round(processor_seconds(pid) - server, 3),
        "page_main_thread_seconds": round(task_seconds() - tab, 4),
    }


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All figures, with the clip in a folder."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "cgconvert", "ui", str(folder), "--port", "0", "--no-browser"]
    environment = os.environ | {"CGCONVERT_HOME": str(folder / "home"), "PYTHONUNBUFFERED": "1"}
    started = time.perf_counter()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server,
        sync_playwright() as running,
    ):
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            figures: dict[str, Any] = {"start_seconds": round(time.perf_counter() - started, 2)}
            browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            opened = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("#files button")
            figures["open_seconds"] = round(time.perf_counter() - opened, 2)
            page.evaluate(WATCH)
            chosen = time.perf_counter()
            page.click("#files button:has-text('clip.mp4')")
            wait_for(page, "window.painted > 0 && document.getElementById('busy').hidden")
            figures["first_frame_seconds"] = round(time.perf_counter() - chosen, 2)
            looks = ["photo2vangogh", "photo2monet"]
            figures["first_changes"] = changes(page, looks, 0)
            changes(page, looks, 1)  # back to what the first frame had: each look and stroke is loaded now
            every = [changes(page, looks, number) for number in range(2, 2 + rounds)]
            figures["changes"] = {kind: [one[kind] for one in every] for kind in every[0]}
            figures["median_change_seconds"] = {
                kind: round(statistics.median(values), 3) for kind, values in figures["changes"].items()
            }
            figures["idle"] = idle(page, browser, server.pid)
            browser.close()
        finally:
            server.terminate()
    return figures


def main() -> None:
    parser = option_parser(__doc__, "page")
    parser.add_argument("--rounds", type=int, default=6, help="changes of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        write_clip(Path(text) / "clip.mp4", (640, 360), 60)
        print(save(arguments.name or "page", measure(Path(text), arguments.rounds)))


if __name__ == "__main__":
    main()
