"""What the page gets: files, frames, plans, uploads."""

from __future__ import annotations

import errno
import io
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from cgconvert.host.folders import data_folder
from cgconvert.ui.places import Places
from cgconvert.ui.queue import Queue
from cgconvert.ui.server import KEPT_SECONDS, Page
from tests.pictures.pictures import smooth
from tests.trainer.conftest import save
from tests.ui.conftest import ACTS
from tests.video.clips import picture


def pixels(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)


def test_folders_list_what_can_be_converted(page: TestClient, media: Path) -> None:
    assert page.get("/api/files").json()["path"] == str(media)  # the only root is what is seen first
    (media / "long.small.mp4.part").mkdir()  # what is finished of a video, which nobody opens
    save(media / "b.png", smooth(8, 8))
    (media / "a folder").mkdir()
    listed = page.get("/api/files", params={"path": str(media)}).json()
    assert [(one["name"], one["kind"]) for one in listed["entries"]] == [
        ("a folder", "folder"),
        ("b.png", "picture"),
        ("in.mp4", "video"),
    ]
    assert listed["parent"] is None
    (media / "a folder" / "in").mkdir()
    below = page.get("/api/files", params={"path": str(media / "a folder")}).json()
    assert below["parent"] == str(media)


def test_of_several_roots_each_is_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    places = Places([tmp_path / "a", tmp_path / "b"])
    assert [one["path"] for one in places.listed("")["entries"]] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert places.listed(str(tmp_path / "a"))["parent"] == ""


def test_names_with_a_script_are_data(page: TestClient, media: Path) -> None:
    name = '<img src=x onerror="alert(1)">.png'
    save(media / "x.png", smooth(8, 8))
    (media / "x.png").rename(media / name)
    answer = page.get("/api/files", params={"path": str(media)})
    assert answer.headers["content-type"] == "application/json"
    assert name in [one["name"] for one in answer.json()["entries"]]
    assert pixels(page.get("/api/frame", params={"path": str(media / name)})).shape == (8, 8, 3)


def test_a_frame_before_and_after(page: TestClient, media: Path, small_model: str) -> None:
    asked = {"path": str(media / "in.mp4"), "t": 0.4, "edge": 96}
    before = pixels(page.get("/api/frame", params=asked))
    assert np.abs(before - picture(10, 96, 64)).mean() < 4  # what two lossy formats lose
    after = pixels(page.get("/api/frame", params=asked | {"model": small_model}))
    assert np.abs(after - before).mean() > 10
    none = pixels(page.get("/api/frame", params=asked | {"model": small_model, "strength": 0}))
    assert np.abs(none - before).max() == 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"t": "9999"}, "past the end"),
        ({"t": "-1"}, "no time"),
        ({"t": "nan"}, "no time"),
        ({"model": "small", "strength": "7"}, "the strength is no number from 0 to 1"),
        ({"model": "small", "stroke": "huge"}, "stroke is unknown"),
        ({"model": "nothing"}, "there is no look nothing"),
    ],
)
def test_what_makes_no_sense_is_told(
    page: TestClient, media: Path, small_model: str, asked: dict[str, str], message: str
) -> None:
    answer = page.get("/api/frame", params={"path": str(media / "in.mp4"), **asked})
    assert answer.status_code == 400
    assert message in answer.json()["error"].replace("stroke huge", "stroke")


def test_three_seconds_are_a_video(page: TestClient, media: Path, small_model: str) -> None:
    answer = page.get("/api/clip", params={"path": str(media / "in.mp4"), "model": small_model})
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content[4:8] == b"ftyp"
    part = page.get(
        "/api/clip",
        params={"path": str(media / "in.mp4"), "model": small_model},
        headers={"range": "bytes=0-99"},
    )
    assert (part.status_code, len(part.content)) == (206, 100)  # as players ask for it


def test_the_result_gets_a_free_name_but_a_name_that_is_given_is_not_changed(
    page: TestClient, media: Path, small_model: str
) -> None:
    asked = {"path": str(media / "in.mp4"), "model": small_model}
    assert page.post("/api/plan", json=asked, headers=ACTS).json()["output"] == str(media / "in.small.mp4")
    (media / "in.small.mp4").write_bytes(b"")
    assert page.post("/api/plan", json=asked, headers=ACTS).json()["output"] == str(media / "in.small-2.mp4")
    assert page.post("/api/jobs", json=asked, headers=ACTS).json()["output"] == str(media / "in.small-2.mp4")
    weaker = asked | {"strength": 0.5}  # the name of a job that waits is taken as well
    assert page.post("/api/plan", json=weaker, headers=ACTS).json()["output"] == str(media / "in.small-3.mp4")
    for name, why in (("in.small.mp4", "exists already"), ("in.small-2.mp4", "is in the queue already")):
        answer = page.post("/api/plan", json=asked | {"output": name}, headers=ACTS)
        assert (answer.status_code, why in answer.json()["error"]) == (400, True)
    asked["output"] = "other.mkv"
    assert page.post("/api/plan", json=asked, headers=ACTS).json()["output"] == str(media / "other.mkv")


def test_an_estimate_for_a_video_and_for_pictures(page: TestClient, media: Path, small_model: str) -> None:
    found = page.post(
        "/api/estimate", json={"path": str(media / "in.mp4"), "model": small_model}, headers=ACTS
    )
    assert found.json()["text"].startswith("about 0:0")
    assert found.json()["frames"] == 20
    (media / "imgs").mkdir()
    for number in range(3):
        save(media / "imgs" / f"{number}.png", smooth(32, 40))
    found = page.post("/api/estimate", json={"path": str(media / "imgs"), "model": small_model}, headers=ACTS)
    told = found.json()
    assert told["text"].startswith("about 0:0")
    assert " for 3 pictures, results of about " in told["text"]
    assert told["result_bytes"] == told["disk_bytes"] > 3 * 100  # a PNG has 57 bytes without any pixel
    assert not told["too_large"]


def test_pictures_get_free_names_too(page: TestClient, media: Path, small_model: str) -> None:
    (media / "imgs").mkdir()
    save(media / "imgs" / "a.png", smooth(32, 40))
    asked = {"path": str(media / "imgs" / "a.png"), "model": small_model}
    (media / "imgs" / "a.small.png").write_bytes((media / "imgs" / "a.png").read_bytes())
    assert page.post("/api/plan", json=asked, headers=ACTS).json()["output"].endswith("/imgs/a.small-2.png")
    (media / "imgs.small").write_text("no folder")
    asked = {"path": str(media / "imgs"), "model": small_model}
    assert page.post("/api/plan", json=asked, headers=ACTS).json()["output"] == str(media / "imgs.small-2")


def test_two_tabs_do_not_queue_a_job_twice(page: TestClient, media: Path, small_model: str) -> None:
    asked = {"path": str(media / "in.mp4"), "model": small_model}
    assert page.post("/api/jobs", json=asked, headers=ACTS).status_code == 201
    answer = page.post("/api/jobs", json=asked, headers=ACTS)
    assert answer.json()["error"] == "in.mp4 is in the queue already in this look"
    assert len(page.get("/api/jobs").json()) == 1


def test_an_upload_becomes_a_file_of_its_own(page: TestClient, media: Path) -> None:
    data = (media / "in.mp4").read_bytes()
    answer = page.post("/api/upload?name=../../up.mp4", content=data, headers=ACTS)
    assert answer.status_code == 201
    path = Path(answer.json()["path"])
    assert path.name == "up.mp4"
    assert path.is_relative_to(data_folder() / "ui" / "uploads")
    assert path.read_bytes() == data
    assert page.get("/api/media", params={"path": str(path)}).json()["kind"] == "video"


@pytest.mark.parametrize("name", ["a.html", ".mp4", "", "a\n.mp4", "x" * 300 + ".mp4"])
def test_uploads_of_other_names_are_refused(page: TestClient, name: str) -> None:
    assert page.post("/api/upload", params={"name": name}, content=b"x", headers=ACTS).status_code == 400
    assert list((data_folder() / "ui" / "uploads").iterdir()) == []


def test_uploads_that_are_too_large_leave_nothing(page: TestClient) -> None:
    """With a length that says so, and without one. The limit of these tests is 100,000 bytes."""
    pieces = (b"x" * 50_000 for _ in range(3))
    for content in (b"x" * 150_000, pieces):
        answer = page.post("/api/upload?name=a.mp4", content=content, headers=ACTS)
        assert answer.status_code == 400
        assert "choose it where it lies" in answer.json()["error"]
        assert list((data_folder() / "ui" / "uploads").iterdir()) == []


def test_an_upload_that_fills_the_disk_says_so_and_leaves_nothing(
    page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda *_: Full())
    answer = page.post("/api/upload?name=a.mp4", content=b"x", headers=ACTS)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("disk full while writing")
    assert list((data_folder() / "ui" / "uploads").iterdir()) == []


def test_a_queue_that_cannot_be_written_is_told(page: TestClient, queue: Queue) -> None:
    table = queue.folder / "queue.sqlite"
    table.unlink()
    table.mkdir()
    answer = page.get("/api/jobs")
    assert (answer.status_code, answer.json()["error"]) == (
        507,
        "the queue of jobs cannot be written: unable to open database file",
    )


def test_uploads_that_no_job_needs_are_forgotten_after_a_day(media: Path, queue: Queue) -> None:
    uploads = queue.folder / "uploads"
    for name in ("old", "new", "needed"):
        (uploads / name).mkdir(parents=True)
    for name in ("old", "needed"):
        os.utime(uploads / name, (0, 0))
    assert KEPT_SECONDS == 86400
    queue.add("video", "a", uploads / "needed" / "a.mp4", "", ["video", str(uploads / "needed" / "a.mp4")])
    Page(Places([media]), queue)
    assert sorted(path.name for path in uploads.iterdir()) == ["needed", "new"]


def test_a_look_is_learned_once_under_a_name(page: TestClient, media: Path, queue: Queue) -> None:
    (media / "paintings").mkdir()
    asked = {
        "kind": "learn",
        "paintings": str(media / "paintings"),
        "source": str(media / "in.mp4"),
        "name": "dabs",
        "minutes": "1",
    }
    job = page.post("/api/jobs", json=asked, headers=ACTS)
    assert job.status_code == 201
    assert list(queue.get(job.json()["id"]).arguments) == [
        "learn", asked["paintings"], "--for", asked["source"], "--name", "dabs", "--minutes", "1",
    ]  # fmt: skip
    for changes, why in (
        ({}, "a look dabs is being learned already"),
        ({"name": "photo2monet"}, "there is a look photo2monet already: choose another name"),
        ({"name": "../x"}, "name"),
        ({"name": "b", "minutes": "0"}, "the minutes are no number of at least 0.1"),
        ({"name": "b", "paintings": asked["source"]}, "choose a folder of paintings"),
    ):
        answer = page.post("/api/jobs", json=asked | changes, headers=ACTS)
        assert (answer.status_code, why in answer.json()["error"]) == (400, True), answer.text
    assert page.get(f"/api/jobs/{job.json()['id']}/preview").json()["error"] == "there is no preview yet"
    folder = data_folder() / "learn" / "dabs"
    folder.mkdir(parents=True)
    save(folder / "preview.jpg", smooth(8, 8))
    assert pixels(page.get(f"/api/jobs/{job.json()['id']}/preview")).shape == (8, 8, 3)
    assert page.get("/api/jobs").json()[0]["preview"] == (folder / "preview.jpg").stat().st_mtime_ns // 10**6
    assert queue.claim() is not None
    queue.change(job.json()["id"], state="paused")
    for what in ("resume", "cancel"):  # while it waits to go on
        page.post(f"/api/jobs/{job.json()['id']}/{what}", headers=ACTS)
    assert not folder.exists()  # so that its name is free again


def test_nothing_looks_at_the_queue_while_no_job_is_under_way(
    page: TestClient, queue: Queue, media: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = 0.05
    monkeypatch.setattr("cgconvert.ui.server.LOOK", wait)
    looked: list[float] = []
    jobs = queue.jobs
    monkeypatch.setattr(queue, "jobs", lambda: looked.append(time.monotonic()) or jobs())
    time.sleep(4 * wait)
    assert looked == []
    job = page.post("/api/jobs", json={"path": str(media / "in.mp4"), "model": small_model}, headers=ACTS)
    looked.clear()
    time.sleep(4 * wait)
    assert looked  # it waits for a runner
    queue.cancel(job.json()["id"])
    time.sleep(4 * wait)
    looked.clear()
    time.sleep(4 * wait)
    assert looked == []
