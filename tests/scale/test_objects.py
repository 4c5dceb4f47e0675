"""Object storage: folders from and to a bucket, create-only puts, and a network that fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto.server")

from cgconvert.cli import main
from cgconvert.errors import InputError, Interrupted, OutputError, UsageError
from cgconvert.host import objects
from cgconvert.host.objects import Names, ObjectPath, parse_place, store_of
from cgconvert.models.catalog import find_model
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.pictures.pipeline import convert_dir
from cgconvert.progress import Silent
from cgconvert.video import resume
from cgconvert.video.series import convert_videos
from tests.pictures.runs import fill, names, run
from tests.scale.s3 import Faults, faulty_proxy, s3_server
from tests.video.clips import Clip, make_clip

EXACT = EngineOptions(device="cpu", engine="eager", precision="fp32")
OPTIONS = ["--model", "identity", "--engine", "eager", "--precision", "fp32", "--device", "cpu"]
SECRET = "not-to-be-printed"


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


Connect = Callable[[int], None]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Lets buckets be those of the server at a port, with quick retries."""

    def connect(port: int) -> None:
        settings = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        store_of.cache_clear()

    yield connect
    store_of.cache_clear()


@pytest.fixture
def bucket(server: int, connect: Connect, request: pytest.FixtureRequest) -> ObjectPath:
    """An empty bucket of this test."""
    import boto3

    connect(server)
    name = f"b{abs(hash(request.node.name)) % 10**12}"
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}", region_name="us-east-1")
    client.create_bucket(Bucket=name)
    return ObjectPath(f"s3://{name}", "")


def upload(folder: Path, target: ObjectPath) -> None:
    for name in names(folder):
        (target / name).write((folder / name).read_bytes(), False)


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return leave.value.code, told.out, told.err


def test_paths_of_objects() -> None:
    path = ObjectPath("s3://bucket", "a/b.c.png")
    assert str(path) == "s3://bucket/a/b.c.png"
    assert (path.name, path.stem, path.suffix, str(path.parent)) == (
        "b.c.png",
        "b.c",
        ".png",
        "s3://bucket/a",
    )
    assert path.with_name("d.jpg") == ObjectPath("s3://bucket", "a/d.jpg")
    assert path.parent.parent / "x" / Path("y/z") == ObjectPath("s3://bucket", "x/y/z")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a/b.png", Path("a/b.png")),
        ("file:///tmp/a%20b.png", Path("/tmp/a b.png")),
        ("s3://bucket/a/b/", ObjectPath("s3://bucket", "a/b")),
        ("https://host/a.png", ObjectPath("https://host", "a.png")),
    ],
)
def test_places(text: str, wanted: object, connect: Connect) -> None:
    connect(1)
    assert parse_place(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/a", "ftp:// cannot be read: use a path, or s3://, gs://, az://, https://, http://"),
        ("s3:///a", "s3:///a names no bucket"),
        ("https://user:word@host/a", "a URL must hold no credentials"),
        ("https://host/a?sig=word", "a URL must hold no credentials"),
    ],
)
def test_places_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        parse_place(text)
    assert "word" not in str(refused.value)


def test_a_folder_from_and_to_a_bucket(
    bucket: ObjectPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results are those of a folder on a disk byte for byte, and the same command has nothing to do."""
    fill(tmp_path / "in", 5)
    fill(tmp_path / "in" / "sub", 3)
    (tmp_path / "in" / "bad.png").write_text("words")
    (tmp_path / "in" / "words.txt").write_text("words")
    run(tmp_path / "in", tmp_path / "out", "identity", EXACT)
    upload(tmp_path / "in", bucket / "in")
    arguments = ["dir", f"{bucket}/in", "-o", f"{bucket}/out", *OPTIONS]
    code, out, err = outcome(capsys, *arguments)
    assert code == 1
    assert out.startswith("Converted 8 pictures (1 failed) in ")
    assert f"Failed: {bucket.bucket}/in/bad.png: not a picture that can be read" in err
    assert SECRET not in out + err
    found = sorted(map(str, (bucket / "out").find()))
    assert found == names(tmp_path / "out")
    for name in found:
        assert (bucket / "out" / name).read() == (tmp_path / "out" / name).read_bytes()
    assert (bucket / "out" / ".cgconvert.json").read() == (tmp_path / "out" / ".cgconvert.json").read_bytes()
    code, out, err = outcome(capsys, *arguments)
    assert (code, out) == (1, "Converted no picture: 1 failed, 8 skipped\n")
    code, out, _ = outcome(capsys, *arguments, "--dry-run")
    assert f"result     {bucket.bucket}/out (1 to convert, 8 finished already)\n" in out
    code, _, err = outcome(capsys, *arguments, "--strength", "0.5")
    assert code == 4
    assert "holds results of identity with another look (strength 1.0)" in err


def test_between_a_bucket_and_a_disk(bucket: ObjectPath, tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    assert convert_dir(tmp_path / "in", f"{bucket}/up", "identity", engine_options=EXACT).converted == 2
    assert convert_dir(f"{bucket}/up", tmp_path / "down", "identity", engine_options=EXACT).converted == 2
    assert names(tmp_path / "down") == names(tmp_path / "in")


def test_single_pictures_and_manifests(
    bucket: ObjectPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "in", 2)
    upload(tmp_path / "in", bucket)
    code, _, err = outcome(capsys, "image", f"{bucket}/000.png", "-o", f"{bucket}/new/a.webp", *OPTIONS)
    assert code == 0, err
    assert (bucket / "new" / "a.webp").read()[8:12] == b"WEBP"
    assert outcome(capsys, "image", f"{bucket}/000.png", *OPTIONS)[0] == 0
    assert (bucket / "000.identity.png").exists()
    listed = tmp_path / "in.jsonl"
    rows = [{"path": f"{bucket}/001.png", "output": f"{bucket}/rows/b.png"}, {"path": f"{bucket}/no.png"}]
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = tmp_path / "results.jsonl"
    arguments = ["--manifest", listed, "-o", tmp_path / "out", "--results", results, *OPTIONS]
    assert outcome(capsys, "dir", *arguments)[0] == 1
    assert (bucket / "rows" / "b.png").exists()
    told = {data["row"]: data for data in map(json.loads, results.read_text().splitlines())}
    assert (told[1]["status"], told[1]["output"]) == ("converted", f"{bucket.bucket}/rows/b.png")
    assert (told[2]["status"], told[2]["reason"]) == ("failed", "no such object")


def test_nothing_is_replaced_unless_asked(bucket: ObjectPath, tmp_path: Path) -> None:
    path = bucket / "a.png"
    path.write(b"first", False)
    with pytest.raises(OutputError, match=r"a\.png has appeared meanwhile: use `overwrite` to replace it"):
        path.write(b"second", False)
    assert path.read() == b"first"
    path.write(b"second", True)
    assert path.read() == b"second"


def test_a_large_file_goes_in_parts(
    bucket: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 5 << 20)
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * (48 << 10))
    (bucket / "large").write(source, False)
    (bucket / "large").download(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    with pytest.raises(OutputError, match="large exists already"):
        (bucket / "large").write(source, False)


def test_names_take_eight_bytes_each(bucket: ObjectPath) -> None:
    for index in range(20):
        (bucket / "out" / f"{index}.png").write(b"", False)
    there = Names(bucket / "out")
    assert there.hashes.nbytes == 160
    assert bucket / "out" / "7.png" in there
    assert bucket / "out" / "20.png" not in there
    assert bucket / "7.png" not in there


def test_what_is_not_there(bucket: ObjectPath, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no such object"):
        (bucket / "no.png").read()
    code, _, err = outcome(capsys, "dir", f"{bucket}/nothing", *OPTIONS)
    assert (code, f"Error: no pictures in {bucket.bucket}/nothing: " in err) == (2, True)
    code, _, err = outcome(capsys, "dir", f"{bucket}/in", "-o", "https://host/out", *OPTIONS)
    assert (code, "web servers take no results" in err) == (2, True)
    code, _, err = outcome(capsys, "dir", f"{bucket}/in", "-o", f"{bucket}/in", *OPTIONS)
    assert (code, "is the source folder itself" in err) == (2, True)
    code, _, err = outcome(capsys, "dir", f"{bucket}/in", "--watch", *OPTIONS)
    assert (code, "--watch is for folders of this machine" in err) == (2, True)


def test_a_network_that_fails_loses_nothing(
    server: int, bucket: ObjectPath, connect: Connect, tmp_path: Path
) -> None:
    """Every fifth request ends in an error of the server, a dropped connection, half an answer, or late."""
    fill(tmp_path / "in", 16)
    upload(tmp_path / "in", bucket / "in")
    faults = Faults(every=5)
    with faulty_proxy(server, faults) as port:
        connect(port)
        done = convert_dir(f"{bucket}/in", f"{bucket}/out", "identity", engine_options=EXACT)
    connect(server)
    assert {fault for _, _, fault in faults.log} == {None, "500", "drop", "cut", "slow"}
    assert (done.converted, done.failures) == (16, [])
    assert len(list((bucket / "out").find())) == 16
    run(tmp_path / "in", tmp_path / "out", "identity", EXACT)
    for name in names(tmp_path / "out"):
        assert (bucket / "out" / name).read() == (tmp_path / "out" / name).read_bytes()


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    store_of.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"not installed: pip install 'cgconvert\[cloud\]'"):
        parse_place("s3://bucket/a")


def test_videos_from_and_to_a_bucket(
    bucket: ObjectPath, tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tree is mirrored, results are those of files, and nothing is left on this machine."""
    clips = tmp_path / "clips"
    (clips / "sub").mkdir(parents=True)
    make_clip(clips / "a.mp4", Clip(frames=6))
    make_clip(clips / "sub" / "b.mp4", Clip(frames=4))
    (clips / "bad.mp4").write_text("words")
    upload(clips, bucket / "clips")
    assert outcome(capsys, "video", clips, "-o", tmp_path / "out", *OPTIONS)[0] == 1
    results = tmp_path / "results.jsonl"
    arguments = ["video", f"{bucket}/clips", "-o", f"{bucket}/painted", *OPTIONS]
    code, out, err = outcome(capsys, *arguments, "--results", results)
    assert code == 1, err
    assert out.startswith("Converted 2 videos (1 failed) with 10 frames in ")
    assert f"Failed: {bucket.bucket}/clips/bad.mp4: " in err
    assert "not a video that can be read" in err
    assert SECRET not in out + err
    for name in ("a.mp4", "sub/b.mp4"):
        assert (bucket / "painted" / name).read() == (tmp_path / "out" / name).read_bytes()
    told = [json.loads(line) for line in results.read_text().splitlines()]
    assert {line["output"]: line["status"] for line in told} == {
        f"{bucket.bucket}/painted/a.mp4": "converted",
        f"{bucket.bucket}/painted/sub/b.mp4": "converted",
        None: "failed",
    }
    assert list((own_home / "staging").rglob("*.mp4")) == []
    code, out, _ = outcome(capsys, *arguments)
    assert (code, out) == (1, "Converted no video: 1 failed, 2 skipped\n")
    code, out, _ = outcome(capsys, *arguments, "--dry-run")
    assert f"finished   {bucket.bucket}/clips/a.mp4 -> {bucket.bucket}/painted/a.mp4\n" in out
    assert f"video      {bucket.bucket}/clips/bad.mp4 -> {bucket.bucket}/painted/bad.mp4\n" in out


def test_one_video_between_a_bucket_and_a_disk(
    bucket: ObjectPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_clip(tmp_path / "a.mp4", Clip(frames=4))
    code, _, err = outcome(capsys, "video", source, "-o", f"{bucket}/new/out.mp4", *OPTIONS)
    assert code == 0, err
    back = tmp_path / "back" / "again.mp4"
    assert outcome(capsys, "video", f"{bucket}/new/out.mp4", "-o", back, *OPTIONS)[0] == 0
    assert back.stat().st_size > 0
    code, _, err = outcome(capsys, "video", f"{bucket}/new/no.mp4", "-o", back.parent, *OPTIONS)
    assert (code, "no.mp4: no such object" in err) == (1, True)


def test_a_video_that_is_interrupted_continues(
    bucket: ObjectPath, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy and its finished segments stay on this machine; the same command goes on behind them."""
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 5)
    make_clip(tmp_path / "a.mp4", Clip(frames=20))
    upload_one = bucket / "a.mp4"
    upload_one.write(tmp_path / "a.mp4", False)

    two_segments, told = threading.Event(), threading.Event()
    add = resume.ResumableRun.add

    def add_and_wait(self: resume.ResumableRun, segment: resume.Segment) -> None:
        """The third segment is begun after the interrupt: otherwise the run may end before anyone is told."""
        add(self, segment)
        if len(self.segments) == 2 and not told.is_set():
            two_segments.set()
            told.wait(60)
            time.sleep(0.5)

    monkeypatch.setattr(resume.ResumableRun, "add", add_and_wait)

    class Impatient(Silent):
        def advance(self, done: int, busiest: str | None = None) -> None:
            if two_segments.is_set():
                told.set()
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        convert_videos([upload_one], bucket / "out", "identity", VideoOptions(), EXACT, Impatient())
    assert list((bucket / "out").find()) == []
    assert len(list((own_home / "staging").rglob("source.mp4"))) == 1
    downloads: list[object] = []
    download = ObjectPath.download
    monkeypatch.setattr(ObjectPath, "download", lambda *given: downloads.append(given) or download(*given))
    done = convert_videos([upload_one], bucket / "out", "identity", VideoOptions(), EXACT)
    assert downloads == []
    assert done.videos[0].resumed_frames == 10
    assert done.videos[0].frames_out == 20
    assert done.videos[0].output == f"{bucket.bucket}/out/a.identity.mp4"
    assert list((own_home / "staging").rglob("*")) == []


def test_a_model_in_a_bucket(
    bucket: ObjectPath, tmp_path: Path, capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    """It converts as the file does, is fetched once for each version, and is used under its own name."""
    fill(tmp_path / "in", 2)
    place = bucket / "looks" / "mine.safetensors"
    place.write(find_model("identity").read_bytes(), False)
    options = [*OPTIONS[2:], "--model", place]
    code, out, _ = outcome(capsys, "dir", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert code == 0 and out.startswith("Converted 2 pictures in ")
    convert_dir(tmp_path / "in", tmp_path / "one", "identity", engine_options=EXACT)
    assert [(tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "in")] == [
        (tmp_path / "one" / name).read_bytes() for name in names(tmp_path / "in")
    ]
    first = find_model(str(place))
    before = first.stat().st_mtime_ns
    assert find_model(str(place)) == first and first.stat().st_mtime_ns == before
    assert first.is_relative_to(own_home) and first.name == "mine.safetensors"
    place.write(find_model("photo2monet-fast").read_bytes(), True)
    second = find_model(str(place))
    assert second != first and second.read_bytes() == find_model("photo2monet-fast").read_bytes()
    assert find_model(f"file://{first}") == first


def test_models_that_cannot_be_fetched(
    bucket: ObjectPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "in", 1)
    options = ["dir", tmp_path / "in", "-o", tmp_path / "out", *OPTIONS[2:], "--model"]
    code, _, err = outcome(capsys, *options, bucket / "no.safetensors")
    assert (code, err) == (3, f"Error: {bucket / 'no.safetensors'}: no such object\n")
    code, _, err = outcome(capsys, *options, bucket / "look.pth")
    assert code == 3
    assert err == f"Error: {bucket / 'look.pth'} is no model: the name of one ends with .safetensors\n"
    code, _, err = outcome(capsys, *options, "s3://user:secret@bucket/look.safetensors")
    assert code == 2 and "secret" not in err
    assert not (tmp_path / "out").exists()


def test_a_model_through_a_network_that_fails(
    server: int, bucket: ObjectPath, connect: Connect, tmp_path: Path
) -> None:
    place = bucket / "mine.safetensors"
    data = find_model("photo2monet").read_bytes()
    place.write(data, False)
    with faulty_proxy(server, Faults(2)) as port:
        connect(port)
        assert find_model(str(place)).read_bytes() == data
