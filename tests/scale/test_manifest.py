"""Manifests: rows with outputs and options of their own, what is wrong with a row, and lines of results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from cgconvert.cli import main
from cgconvert.cli.wording import logs_json
from cgconvert.errors import OutputError, UsageError
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.rows import plan_rows
from cgconvert.scale.results import ResultLines
from tests.pictures.runs import fill, names
from tests.video.clips import Clip, make_clip

EXACT = EngineOptions(device="cpu", engine="eager", precision="fp32")
OPTIONS = ["--model", "identity", "--engine", "eager", "--precision", "fp32", "--device", "cpu"]


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return leave.value.code, told.out, told.err


def manifest(folder: Path, *rows: Any, name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> dict[int, dict[str, Any]]:
    """Lines of results by their rows."""
    return {data["row"]: data for data in map(json.loads, path.read_text().splitlines())}


def test_pictures_of_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str], small_model: str) -> None:
    """Every row has its own output and options, a bad one fails alone, and each has a line of results."""
    fill(tmp_path / "in", 4)
    (tmp_path / "in" / "bad.png").write_text("words")
    listed = manifest(
        tmp_path,
        {"path": "in/000.png"},
        {"path": "in/001.png", "output": "other/name.webp", "options": {"quality": 100}},
        {"path": "in/002.png", "options": {"strength": 0}},
        {"path": "in/bad.png", "output": None, "options": None, "id": "not ours"},
        {"path": str(tmp_path / "in" / "003.png")},
    )
    output, results = tmp_path / "out", tmp_path / "results.jsonl"
    options = [*OPTIONS[2:], "--model", small_model, "-o", output]
    code, out, _ = outcome(capsys, "dir", "--manifest", listed, *options, "--results", results)
    assert code == 1
    assert out.startswith("Converted 4 pictures (1 failed) in ")
    assert names(output) == ["003.png", "in/000.png", "in/002.png", "other/name.webp"]
    same = [
        (cv2.imread(str(output / name)) == cv2.imread(str(tmp_path / name))).all()
        for name in ("in/002.png", "in/000.png")
    ]
    assert same == [True, False]  # strength 0 is the source bit for bit, and the network is not
    told = lines(results)
    assert sorted(told) == [1, 2, 3, 4, 5]
    first = told[1]
    data = (output / "in" / "000.png").read_bytes()
    assert (first["status"], first["reason"], first["width"], first["height"]) == ("converted", None, 32, 24)
    assert first["path"] == str(tmp_path / "in" / "000.png")
    assert first["output"] == str(output / "in" / "000.png")
    assert first["source_bytes"] == (tmp_path / "in" / "000.png").stat().st_size
    assert (first["output_bytes"], first["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert first["seconds"] >= 0
    assert told[4]["status"] == "failed"
    assert told[4]["reason"].startswith("not a picture that can be read")
    again = tmp_path / "again.jsonl"
    assert outcome(capsys, "dir", "--manifest", listed, *options, "--results", again)[0] == 1
    assert {row: data["status"] for row, data in lines(again).items()} == {
        **dict.fromkeys((1, 2, 3, 5), "skipped"),
        4: "failed",
    }


def test_shards_of_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results of all shards together are those of all rows."""
    fill(tmp_path / "in", 10)
    listed = manifest(tmp_path, *({"path": f"in/{index:03}.png"} for index in range(10)))
    results = tmp_path / "results.jsonl"
    for part in ("1/2", "2/2"):
        arguments = ["--manifest", listed, "-o", tmp_path / "out", "--results", results, "--shard", part]
        assert outcome(capsys, "dir", *arguments, *OPTIONS)[0] == 0
    assert len(results.read_text().splitlines()) == 10
    assert sorted(lines(results)) == list(range(1, 11))
    assert {data["status"] for data in lines(results).values()} == {"converted"}


def test_videos_of_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        make_clip(tmp_path / "in" / name, Clip(frames=10))
    (tmp_path / "in" / "bad.mp4").write_text("words")
    listed = manifest(
        tmp_path,
        {"path": "in/a.mp4"},
        {"path": "in/b.mp4", "output": "cut.mkv", "options": {"codec": "ffv1", "end": 0.2}},
        {"path": "in/bad.mp4"},
    )
    output, results = tmp_path / "out", tmp_path / "results.jsonl"
    arguments = ["video", "--manifest", listed, "-o", output, *OPTIONS, "--results", results]
    code, _, err = outcome(capsys, *arguments)
    assert code == 1, err
    assert names(output) == ["cut.mkv", "in/a.mp4"]
    told = lines(results)
    counts = {row: (data["status"], data.get("frames")) for row, data in told.items()}
    assert counts == {1: ("converted", 10), 2: ("converted", 5), 3: ("failed", None)}
    assert told[2]["sha256"] == hashlib.sha256((output / "cut.mkv").read_bytes()).hexdigest()
    assert (told[1]["width"], told[1]["height"]) == (96, 64)
    code, out, _ = outcome(capsys, "video", "--manifest", listed, "-o", output, *OPTIONS, "--dry-run")
    assert code == 0
    assert f"finished   {tmp_path}/in/b.mp4 -> {output}/cut.mkv\n" in out


def test_without_an_output_results_lie_beside_their_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "in", 1)
    listed = manifest(tmp_path, {"path": "in/000.png"}, {"path": "in/000.png", "output": "x.png"})
    assert outcome(capsys, "dir", "--manifest", listed, *OPTIONS)[0] == 0
    assert names(tmp_path) == ["in.jsonl", "in/000.identity.png", "in/000.png", "x.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("words", "is no object"),
        ({"output": "a.png"}, 'has no "path"'),
        ({"path": "a.png", "output": 3}, '"output" is no path'),
        ({"path": "a.png", "options": [1]}, '"options" is no object'),
        (
            {"path": "a.png", "options": {"speed": 1}},
            "no option 'speed'; there are: format, quality",
        ),
        ({"path": "a.png", "options": {"watch": True}}, "no option 'watch'"),
        (
            {"path": "a.png", "options": {"quality": "high"}},
            "the value 'high' of 'quality' is of",
        ),
        ({"path": "a.png", "options": {"quality": True}}, "the value True of 'quality' is of the wrong type"),
        ({"path": "a.png", "options": {"strength": 2}}, "`strength=2` is not a number from 0 to 1"),
        ({"path": "a.png", "output": "a.txt"}, r"a\.txt is no name of a picture"),
        ({"path": "a.png", "output": "b.jpg", "options": {"format": "png"}}, "contradict each other"),
        ({"path": "b.png"}, "row 1 has the same output"),
    ],
)
def test_rows_that_are_wrong(row: object, message: str, tmp_path: Path) -> None:
    """They are refused before any work, with their number."""
    listed = manifest(tmp_path, {"path": "b.png"}, row)
    with pytest.raises(UsageError, match=f"in\\.jsonl, row 2: .*{message}"):
        plan_rows(listed, tmp_path / "out", "identity", ImageOptions(), EXACT)


def test_files_that_are_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text("{\n")
    code, _, err = outcome(capsys, "dir", "--manifest", tmp_path / "in.jsonl", *OPTIONS)
    assert (code, err) == (2, f"Error: {tmp_path}/in.jsonl, row 1: is no JSON\n")
    (tmp_path / "in.jsonl").write_text("\n")
    assert outcome(capsys, "video", "--manifest", tmp_path / "in.jsonl", *OPTIONS)[0] == 2
    code, _, err = outcome(capsys, "dir", "--manifest", tmp_path / "no.jsonl", *OPTIONS)
    assert (code, err) == (2, f"Error: no such file: {tmp_path}/no.jsonl\n")
    code, _, err = outcome(capsys, "dir", tmp_path, "--manifest", tmp_path / "in.jsonl", *OPTIONS)
    assert (code, "Give DIR or --manifest, not both." in err) == (2, True)
    code, _, err = outcome(capsys, "dir", *OPTIONS)
    assert (code, "Missing argument 'DIR'." in err) == (2, True)


def test_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options are a struct, whose fields every row has, or text."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    fill(tmp_path / "in", 2)
    for number, options in enumerate(([{"strength": 0.5}, None], ['{"strength": 0.5}', None])):
        table = pyarrow.table({"path": ["in/000.png", "in/001.png"], "options": options, "size": [1, 2]})
        parquet.write_table(table, tmp_path / "in.parquet")
        output = tmp_path / f"out{number}"
        arguments = ["--manifest", tmp_path / "in.parquet", "-o", output, *OPTIONS]
        assert outcome(capsys, "dir", *arguments)[0] == 0
        assert names(output) == ["in/000.png", "in/001.png"]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Parquet needs pyarrow, which is not installed"):
        plan_rows(tmp_path / "in.parquet", None, "identity", ImageOptions(), EXACT)


def test_results_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file grows, one line a picture or video, and names that are no text are escaped."""
    fill(tmp_path / "in", 2)
    make_clip(tmp_path / "in" / "a.mp4", Clip(frames=2))
    results = tmp_path / "new" / "results.jsonl"
    arguments = ["dir", tmp_path / "in", "--videos", "-o", tmp_path / "out", "--results", results, *OPTIONS]
    for _ in range(2):
        assert outcome(capsys, *arguments)[0] == 0
    statuses = [json.loads(line)["status"] for line in results.read_text().splitlines()]
    assert sorted(statuses) == ["converted"] * 3 + ["skipped"] * 3
    with ResultLines(results) as one:
        one.write("failed", Path("\udcff.png"), None, "reason")
    assert json.loads(results.read_text().splitlines()[-1])["path"] == "\\udcff.png"


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*results\.jsonl"):
        ResultLines(tmp_path / "file" / "results.jsonl")
    if Path("/dev/full").exists():
        with (
            ResultLines(Path("/dev/full")) as full,
            pytest.raises(OutputError, match="disk full while writing /dev/full"),
        ):
            full.write("failed", "a", None)


def test_everything_is_told_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line of both streams is an object with event and time; so is an error."""
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "a.mp4", Clip(frames=2))
    (tmp_path / "in" / "bad.mp4").write_text("words")
    arguments = ["video", tmp_path / "in", "-o", tmp_path / "out", *OPTIONS, "--log", "json"]
    code, out, err = outcome(capsys, *arguments)
    assert code == 1
    events = [json.loads(line) for line in err.splitlines()]
    assert all(event["time"] > 1e9 for event in events)
    assert [event["event"] for event in events].count("videos") == 3
    assert {"event", "time", "task", "total", "unit"} <= set(
        next(event for event in events if event["event"] == "begin")
    )
    assert any(event["event"] == "message" and "Failed: " in event["text"] for event in events)
    done = json.loads(out)
    assert (done["event"], done["text"].startswith("Converted 1 video (1 failed)")) == ("done", True)
    code, out, err = outcome(capsys, "dir", tmp_path / "no", *OPTIONS, "--log", "json")
    assert (code, out) == (2, "")
    error = json.loads(err)
    assert (error["event"], error["exit_code"]) == ("error", 2)
    assert error["text"] == f"no such folder: {tmp_path}/no"
    assert not logs_json()  # it was left so, and whatever the process told next was JSON
