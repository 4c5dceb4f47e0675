"""What the page gets: files, frames, plans, uploads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from cgconvert.host.folders import data_folder
from tests.pictures.pictures import smooth
from tests.trainer.conftest import save
from tests.ui.conftest import ACTS
from tests.video.clips import picture


def pixels(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)


def test_folders_list_what_can_be_converted(page: TestClient, media: Path) -> None:
    assert [one["path"] for one in page.get("/api/files").json()["entries"]] == [str(media)]
    save(media / "b.png", smooth(8, 8))
    (media / "a folder").mkdir()
    listed = page.get("/api/files", params={"path": str(media)}).json()
    assert [(one["name"], one["kind"]) for one in listed["entries"]] == [
        ("a folder", "folder"),
        ("b.png", "picture"),
        ("in.mp4", "video"),
    ]
    assert listed["parent"] == ""  # a root: above it are the roots


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


def test_the_plan_says_where_the_result_goes_and_what_is_in_the_way(
    page: TestClient, media: Path, small_model: str
) -> None:
    asked = {"path": str(media / "in.mp4"), "model": small_model}
    assert page.post("/api/plan", json=asked, headers=ACTS).json()["output"] == str(media / "in.small.mp4")
    (media / "in.small.mp4").write_bytes(b"")
    answer = page.post("/api/plan", json=asked, headers=ACTS)
    assert (answer.status_code, "exists already" in answer.json()["error"]) == (400, True)
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
    assert found.json()["text"].endswith("for 3 pictures")


def test_two_tabs_do_not_queue_a_job_twice(page: TestClient, media: Path, small_model: str) -> None:
    asked = {"path": str(media / "in.mp4"), "model": small_model}
    assert page.post("/api/jobs", json=asked, headers=ACTS).status_code == 201
    answer = page.post("/api/jobs", json=asked, headers=ACTS)
    assert answer.json()["error"] == "a job for in.small.mp4 is in the queue already"
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
