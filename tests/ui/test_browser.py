"""The page in a real browser: from choosing a video to its result, over a killed server."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgconvert.cli import cgconvert, run
from cgconvert.host.folders import data_folder
from cgconvert.ui.queue import Queue
from cgconvert.ui.server import MOST_UPLOAD
from cgconvert.video import resume
from tests.pictures.pictures import smooth
from tests.trainer.conftest import make_domain, save
from tests.ui.conftest import Server
from tests.video.clips import Clip, make_clip

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.slow


@pytest.fixture
def tab() -> Iterator[Any]:
    """A tab of headless Chromium. What its pages throw is kept in `tab.thrown`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium here: install the distribution's, such as apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context().new_page()
        page.set_default_timeout(60_000)
        page.thrown = []
        page.on("pageerror", lambda error: page.thrown.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        yield page
        browser.close()


def until(tab: Any, script: str, seconds: float = 120) -> None:
    """Wait for a script to be true. Playwright's own way needs eval, which the page forbids."""
    end = time.monotonic() + seconds
    while not tab.evaluate(script):
        assert time.monotonic() < end, f"{script}: {tab.inner_text('body')}"
        time.sleep(0.05)


def split(tab: Any) -> str:
    """Where the result begins."""
    told: str = tab.evaluate("document.getElementById('view').style.getPropertyValue('--split')")
    return told


def jobs_say(tab: Any, word: str) -> None:
    until(tab, f"document.getElementById('jobs').innerText.includes('{word}')")


def power_off(server: Server) -> None:
    """Kill the server, the runner and the job at once, as a machine does that loses its power."""
    pid = Queue().jobs()[0].pid
    assert pid is not None
    runner = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])  # the job's parent
    server.kill()
    for one in (runner, pid):
        os.kill(one, signal.SIGKILL)


def test_from_a_video_to_its_result_over_a_killed_server(
    tab: Any, server: Server, media: Path, small_model: str
) -> None:
    clip = make_clip(media / "long.mp4", Clip(frames=3 * resume.SEGMENT_FRAMES, width=320, height=240))
    save(media / "x.png", smooth(8, 8))
    (media / "x.png").rename(media / '<img src=x onerror="document.title=1">.png')
    tab.goto(server.start())
    assert "token" not in tab.url
    tab.click("#files button:has-text('long.mp4')")
    until(tab, "document.getElementById('after').src.startsWith('blob:')")
    assert tab.title() == "cgconvert"  # no script of a name has run
    # The slider moves by keyboard, and says what it does.
    tab.focus("#split")
    tab.keyboard.press("Home")
    assert split(tab) == "0%"
    assert tab.get_attribute("#split", "aria-valuetext") == "0% before, 100% after"
    # And it is dragged.
    place = tab.locator("#compare").bounding_box()
    middle = place["y"] + place["height"] / 2
    tab.mouse.move(place["x"] + place["width"] * 0.1, middle)
    tab.mouse.down()
    tab.mouse.move(place["x"] + place["width"] * 0.75, middle, steps=5)
    tab.mouse.up()
    assert 73 <= float(split(tab).rstrip("%")) <= 77  # a thumb's width is not part of its way
    before = tab.get_attribute("#after", "src")
    tab.click("#looks label:has-text('small')")
    until(tab, f"document.getElementById('after').src !== '{before}'")
    until(tab, "document.getElementById('where').textContent.endsWith('long.small.mp4')")
    tab.click("#start")
    jobs_say(tab, "of 750 frames")
    server.kill()
    until(tab, "!document.getElementById('offline').hidden")
    tab.goto(server.start())  # another port, and another session
    jobs_say(tab, "Running")  # it has gone on meanwhile
    other = tab.context.new_page()  # a second tab sees the same, and what it does is seen here
    other.goto(server.root)
    jobs_say(other, "Running")
    other.bring_to_front()
    other.click("#jobs button:has-text('Pause')")
    jobs_say(other, "Paused")
    tab.bring_to_front()
    jobs_say(tab, "Paused")
    other.close()
    tab.click("#jobs button:has-text('Resume')")
    jobs_say(tab, " left")
    power_off(server)
    tab.goto(server.start())
    jobs_say(tab, "Done")
    tab.click("#jobs button:has-text('Report')")
    until(tab, "document.getElementById('report').open")
    assert "750 of 750" in tab.inner_text("#report")
    typed = media / "typed.mp4"
    with pytest.raises(SystemExit):
        run(cgconvert, "cgconvert", ["video", str(clip), "-o", str(typed), "-m", "small", "--quiet"])
    assert typed.read_bytes() == (media / "long.small.mp4").read_bytes()
    assert tab.thrown == []


def test_cancel_and_the_width_of_a_phone(tab: Any, server: Server, media: Path, small_model: str) -> None:
    make_clip(media / "long.mp4", Clip(frames=4 * resume.SEGMENT_FRAMES, width=320, height=240))
    tab.set_viewport_size({"width": 360, "height": 700})
    tab.goto(server.start())
    tab.click("#files button:has-text('long.mp4')")
    tab.click("#looks label:has-text('small')")
    until(tab, "document.getElementById('where').textContent.endsWith('long.small.mp4')")
    assert tab.evaluate("document.documentElement.scrollWidth") == 360  # nothing sticks out
    tab.click("#start")
    jobs_say(tab, "Running")
    tab.click("#jobs button:has-text('Cancel')")
    jobs_say(tab, "Cancelled")
    assert [job.state for job in Queue().jobs()] == ["cancelled"]
    assert not list(media.glob("long.small*"))
    assert tab.thrown == []


def test_a_look_is_learned_paused_resumed_and_cancelled(tab: Any, server: Server, media: Path) -> None:
    make_domain(media / "paintings", True, 20, (96, 80))
    tab.goto(server.start())
    tab.click("#tab-learn")
    tab.click("#learn-start")  # the browser says that the name is missing
    assert Queue().jobs() == []
    tab.fill("#name", "warm")
    tab.click("#learn-start")
    until(tab, "document.getElementById('problem').textContent.startsWith('Choose the paintings first')")
    tab.click("#files button:has-text('paintings')")
    tab.click("#take-paintings")
    tab.click("#crumbs button")
    tab.click("#files button:has-text('in.mp4')")
    tab.click("#learn-start")
    until(tab, "document.getElementById('growing-image').naturalWidth > 0")
    first = tab.get_attribute("#growing-image", "src")
    until(tab, f"document.getElementById('growing-image').getAttribute('src') !== '{first}'")
    tab.click("#jobs button:has-text('Pause')")
    jobs_say(tab, "Paused")
    folder = data_folder() / "learn" / "warm"
    assert (folder / "checkpoint.pt").is_file()
    tab.click("#jobs button:has-text('Resume')")
    jobs_say(tab, "Running: ")
    tab.click("#jobs button:has-text('Cancel')")
    jobs_say(tab, "Cancelled")
    assert not folder.exists()
    assert tab.thrown == []


def test_a_look_that_is_learned_over_a_lost_machine_is_installed_and_chosen(
    tab: Any, server: Server, media: Path
) -> None:
    make_domain(media / "paintings", True, 20, (96, 80))
    tab.goto(server.start())
    tab.click("#tab-learn")
    tab.click("#files button:has-text('paintings')")
    tab.click("#take-paintings")
    tab.click("#crumbs button")
    tab.click("#files button:has-text('in.mp4')")
    tab.fill("#name", "warm")
    tab.fill("#minutes", "1")
    tab.click("#learn-start")
    folder = data_folder() / "learn" / "warm"
    until(tab, "document.getElementById('growing-image').naturalWidth > 0")
    tab.click("#jobs button:has-text('Pause')")  # a checkpoint is there
    jobs_say(tab, "Paused")
    assert (folder / "checkpoint.pt").is_file()
    tab.click("#jobs button:has-text('Resume')")
    jobs_say(tab, "Running: ")
    power_off(server)
    tab.goto(server.start())
    jobs_say(tab, "Done")
    assert (data_folder() / "models" / "warm.safetensors").is_file()
    tab.click("#tab-convert")
    tab.click("#files button:has-text('in.mp4')")
    until(tab, "document.getElementById('after').src.startsWith('blob:')")
    tab.click("#jobs button:has-text('Use this look')")
    until(tab, "document.querySelector('#looks :checked').value === 'warm'")
    tab.click("#start")
    until(tab, "document.querySelectorAll('#jobs .state.done').length === 2")
    tab.click("#jobs button:has-text('Report')")
    until(tab, "document.getElementById('report').open")
    assert "warm" in tab.inner_text("#report-facts")
    assert "20 of 20" in tab.inner_text("#report-facts")
    assert tab.thrown == []


def test_a_learned_look_is_used_and_old_results_are_not_shown(
    tab: Any, server: Server, media: Path, small_model: str
) -> None:
    queue = Queue()
    queue.change(queue.add("learn", "small", media, "", ["learn"]).id, state="done", text="small learned")
    tab.goto(server.start())
    tab.click("#files button:has-text('in.mp4')")
    until(tab, "document.getElementById('after').src.startsWith('blob:')")
    tab.click("#jobs button:has-text('Use this look')")
    until(tab, "document.querySelector('#looks :checked').value === 'small'")
    tab.click("#play")
    until(tab, "document.getElementById('clip').readyState >= 2")
    tab.click("#all-looks")
    until(tab, "!document.getElementById('all-looks').disabled")
    chosen = "document.querySelector('#side [aria-current=true]').dataset.model"
    assert tab.evaluate(chosen) == "small"
    assert tab.is_visible("#clip")
    tab.click("#side button[data-model=photo2monet]")
    until(tab, f"{chosen} === 'photo2monet'")
    assert not tab.is_visible("#clip")  # it is of another look
    assert tab.is_visible("#side")
    tab.focus("#strength")
    tab.keyboard.press("ArrowLeft")
    assert tab.inner_text("#strength-value") == "95%"
    assert not tab.is_visible("#side")
    assert tab.thrown == []


def test_a_small_file_is_dropped_and_a_large_one_is_not_sent(
    tab: Any, server: Server, media: Path, small_model: str
) -> None:
    tab.goto(server.start())
    tab.wait_for_selector("#looks label", state="attached")
    tab.set_input_files("#upload", media / "in.mp4")
    until(tab, "document.getElementById('upload-note').textContent === 'in.mp4 is here.'")
    until(tab, "document.getElementById('after').src.startsWith('blob:')")
    large = media / "large.mp4"
    with large.open("wb") as file:
        file.truncate(MOST_UPLOAD + 1)
    tab.set_input_files("#upload", large)
    until(
        tab,
        "document.getElementById('upload-note').textContent.startsWith('large.mp4 is larger than 500 MiB.')",
    )
    assert len(list((data_folder() / "ui" / "uploads").iterdir())) == 1
    assert tab.thrown == []
