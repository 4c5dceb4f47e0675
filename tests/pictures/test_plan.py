"""From paths to jobs: what is found, where results go, what is refused before any work starts."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest

from cgconvert.errors import ModelError, OutputError, UsageError, printable
from cgconvert.media.picture.headers import describe_unknown, identify
from cgconvert.options import EngineOptions, ImageOptions, VideoOptions
from cgconvert.pictures.files import output_name
from cgconvert.pictures.plan import ImagePlan, plan_dir, plan_images
from cgconvert.video.plan import plan_video
from tests.pictures.pictures import encode, noise
from tests.video.clips import Clip, make_clip


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def pairs(plan: ImagePlan, base: Path) -> list[tuple[str, str]]:
    return [
        (os.fspath(j.source.relative_to(base)), os.fspath(j.output.relative_to(base))) for j in plan.jobs()
    ]


def folder_plan(folder: Path, output: Path | None = None, **options: object) -> ImagePlan:
    return plan_dir(folder, output, "same", ImageOptions(**options), EngineOptions())  # type: ignore[arg-type]


def file_plan(files: list[Path], output: Path | None = None, **options: object) -> ImagePlan:
    return plan_images(files, output, "same", ImageOptions(**options), EngineOptions())  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def installed(same: str) -> None:
    """Every test has the model `same`."""


def test_the_tree_is_mirrored_beside_the_folder(tmp_path: Path) -> None:
    touch(
        tmp_path / "in",
        "b.JPG",
        "a.png",
        "sub/deep/c.TIFF",
        "sub/d.webp",
        "e.avif",
        "f.bmp",
        "notes.txt",
        "g",
    )
    plan = folder_plan(tmp_path / "in")
    assert pairs(plan, tmp_path) == [
        ("in/a.png", "in.same/a.png"),
        ("in/b.JPG", "in.same/b.JPG"),
        ("in/e.avif", "in.same/e.avif"),
        ("in/f.bmp", "in.same/f.bmp"),
        ("in/sub/d.webp", "in.same/sub/d.webp"),
        ("in/sub/deep/c.TIFF", "in.same/sub/deep/c.TIFF"),
    ]
    assert plan.total == 6
    assert [job.format for job in plan.jobs()] == ["png", "jpeg", "avif", "bmp", "webp", "tiff"]


def test_hidden_and_temporary_files_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", ".cgconvert-0123.png", "._a.png", ".trash/b.png")
    assert [job.source.name for job in folder_plan(tmp_path / "in").jobs()] == ["a.png"]


def test_the_output_folder_inside_is_not_read_again(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "out/a.png", "out/sub/b.png")
    plan = folder_plan(tmp_path / "in", tmp_path / "in/out")
    assert pairs(plan, tmp_path) == [("in/a.png", "in/out/a.png")]


def test_links_to_files_count_and_links_to_folders_do_not(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "sub/b.png")
    touch(tmp_path, "elsewhere.png")
    (tmp_path / "in/link.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "in/broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "in/sub/round").symlink_to(tmp_path / "in")
    names = [
        os.fspath(job.source.relative_to(tmp_path / "in")) for job in folder_plan(tmp_path / "in").jobs()
    ]
    assert names == ["a.png", "broken.png", "link.png", "sub/b.png"]


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "pics", "a.png")
    monkeypatch.chdir(tmp_path / "pics")
    assert next(folder_plan(Path()).jobs()).output.resolve() == tmp_path / "pics.same/a.png"
    assert next(folder_plan(Path("../pics")).jobs()).output.resolve() == tmp_path / "pics.same/a.png"


def test_format_changes_suffixes_but_not_those_that_fit(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "b.JPEG", "c.d.tif")
    plan = folder_plan(tmp_path / "in", format="jpeg")
    assert [job.output.name for job in plan.jobs()] == ["a.jpg", "b.JPEG", "c.d.jpg"]
    assert {job.format for job in plan.jobs()} == {"jpeg"}
    assert output_name("x.y.PNG", None) == "x.y.PNG"


def test_two_pictures_that_would_become_one(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "a.png", "sub/a.jpg")
    folder_plan(tmp_path / "in")
    with pytest.raises(UsageError, match=r"a\.jpg and .*a\.png would both become .*a\.png"):
        folder_plan(tmp_path / "in", format="png")


def test_the_model_of_a_path_is_called_by_its_card(tmp_path: Path, own_home: Path) -> None:
    touch(tmp_path / "in", "a.png")
    moved = tmp_path / "renamed.safetensors"
    moved.write_bytes((own_home / "models/same.safetensors").read_bytes())
    plan = plan_dir(tmp_path / "in", None, moved, ImageOptions(), EngineOptions())
    assert plan.output == tmp_path / "in.same"


@pytest.mark.parametrize(
    ("folder", "output", "error", "words"),
    [
        ("nowhere", None, UsageError, "no such folder: nowhere"),
        ("in/a.png", None, UsageError, "in/a.png is a file: use `cgconvert image`"),
        ("empty", None, UsageError, "no pictures in empty: looked for .jpg .png"),
        ("in", "in", UsageError, "in is the source folder itself"),
        ("in/sub", "in", UsageError, "in holds the source folder"),
        ("in", "file", OutputError, "file is a file"),
        ("/", None, UsageError, "say where the results of / go, with `output`"),
    ],
)
def test_folders_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, output: str | None, error: type, words: str
) -> None:
    touch(tmp_path, "in/a.png", "in/sub/b.png", "file", "empty/readme.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        folder_plan(Path(folder), None if output is None else Path(output))
    assert str(caught.value).startswith(words)


def test_an_empty_folder_may_be_watched(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert folder_plan(tmp_path / "in", watch=True).total == 0


def test_files_go_beside_themselves(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b.tar.png")
    plan = file_plan([tmp_path / "a.jpg", tmp_path / "sub/b.tar.png", tmp_path / "a.jpg"])
    assert pairs(plan, tmp_path) == [("a.jpg", "a.same.jpg"), ("sub/b.tar.png", "sub/b.tar.same.png")]
    assert pairs(file_plan([tmp_path / "a.jpg"], format="webp"), tmp_path) == [("a.jpg", "a.same.webp")]


def test_files_go_where_they_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "there").mkdir()
    one = [tmp_path / "a.jpg"]
    assert pairs(file_plan(one, tmp_path / "x.png"), tmp_path) == [("a.jpg", "x.png")]
    assert file_plan(one, tmp_path / "x.png").files[0].format == "png"
    assert pairs(file_plan(one, tmp_path / "there"), tmp_path) == [("a.jpg", "there/a.jpg")]
    assert pairs(file_plan(one, tmp_path / "new.v2"), tmp_path) == [("a.jpg", "new.v2/a.jpg")]
    both = file_plan([*one, tmp_path / "b.jpg"], tmp_path / "new.png")  # two: it can only be a folder
    assert pairs(both, tmp_path) == [("a.jpg", "new.png/a.jpg"), ("b.jpg", "new.png/b.jpg")]


def test_a_name_that_says_nothing_is_decided_by_content(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"\xff\xd8\xff\xe0" + bytes(30))
    (tmp_path / "scan.dat").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    plan = file_plan([tmp_path / "photo", tmp_path / "scan.dat"])
    assert [(job.output.name, job.format) for job in plan.jobs()] == [
        ("photo.same.jpg", "jpeg"),
        ("scan.same.png", "png"),
    ]


def test_results_of_an_earlier_run_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.same.jpg", "b.same.jpg")
    plan = file_plan(sorted(tmp_path.glob("*.jpg")), overwrite=True)
    assert [job.source.name for job in plan.jobs()] == ["a.jpg", "b.same.jpg"]
    assert plan.notes == ("1 of the files are results of same and are left out",)


@pytest.mark.parametrize(
    ("files", "output", "options", "error", "words"),
    [
        (["none.png"], None, {}, UsageError, "no such file: none.png"),
        (["sub"], None, {}, UsageError, "sub is a folder: use `cgconvert dir`"),
        (["a.jpg", "sub/a.jpg"], "out", {}, UsageError, "a.jpg and sub/a.jpg would both become out/a.jpg"),
        (["a.jpg"], "a.jpg", {}, UsageError, "a.jpg is the source itself"),
        (["a.jpg", "b.jpg"], ".", {}, UsageError, "a.jpg is the source itself"),
        (["a.jpg"], "x.psd", {}, UsageError, "x.psd: .psd cannot be written, use one of .jpg"),
        (["a.jpg"], "x.png", {"format": "jpeg"}, UsageError, "`output` x.png and `format='jpeg'` contradict"),
        (["a.jpg", "b.jpg"], "sub/a.jpg", {}, OutputError, "sub/a.jpg is a file: choose a folder"),
        (["a.jpg"], "sub/a.jpg", {}, OutputError, "sub/a.jpg exists already: use `overwrite`"),
        (["a.jpg"], None, {"format": "psd"}, UsageError, "unknown format 'psd': use jpeg, png"),
        (["a.jpg"], None, {"quality": 0}, UsageError, "`quality=0` is not from 1 to 100"),
        (["a.jpg"], None, {"quality": 50, "format": "png"}, UsageError, "`quality` means nothing to png"),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    output: str | None,
    options: dict[str, object],
    error: type,
    words: str,
) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "sub/a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        file_plan([Path(name) for name in files], None if output is None else Path(output), **options)
    assert str(caught.value).startswith(words)


def test_a_model_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(ModelError, match="did you mean same"):
        plan_images([tmp_path / "a.jpg"], None, "sane", ImageOptions(), EngineOptions())


def test_names_for_people() -> None:
    assert printable("a\nb\x1b[0m") == "a\\nb\\x1b[0m"
    assert printable(os.fsdecode(b"\xff.png")) == "\\udcff.png"
    assert printable("Grüße 東京.png") == "Grüße 東京.png"


def test_an_unreadable_folder_is_a_failure_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "in", "a.png", "closed/b.png", "z.png")
    plan, scandir = folder_plan(tmp_path / "in"), os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    failures: list = []
    assert [job.source.name for job in plan.jobs(failures)] == ["a.png", "z.png"]
    assert [(f.file.name, f.reason) for f in failures] == [
        ("closed", "folder cannot be read: Permission denied")
    ]


def test_videos_are_sent_where_they_are_converted(tmp_path: Path, same: str) -> None:
    """Each of the three commands names the one that does it, and never another that sends it back."""
    clip, folder = make_clip(tmp_path / "a.mp4", Clip(frames=1)), tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    clip.rename(folder / "more" / "a.mp4")
    clip = folder / "more" / "a.mp4"
    engine = EngineOptions(device="cpu")
    with pytest.raises(UsageError, match=r"a\.mp4 is a video: use `cgconvert video`$"):
        plan_images([clip], None, same, ImageOptions(), engine)
    with pytest.raises(UsageError, match=r"a\.mp4 is a video: use `cgconvert video`$"):
        plan_dir(clip, None, same, ImageOptions(), engine)
    with pytest.raises(UsageError, match=r"it holds 1 video: use `cgconvert video`$"):
        plan_dir(folder, None, same, ImageOptions(), engine)
    with pytest.raises(UsageError, match=r"is a folder: convert its videos one by one, its pictures with"):
        plan_video(folder, None, same, VideoOptions(), engine)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".flv"])
def test_a_video_is_known_by_its_content(suffix: str, tmp_path: Path) -> None:
    codec = {".webm": "libvpx-vp9", ".mpg": "mpeg2video", ".avi": "mpeg4"}.get(suffix, "libx264")
    clip = Clip(frames=2, codec=codec, options={}, time_base=Fraction(1, 25), step=1)
    data = make_clip(tmp_path / f"a{suffix}", clip).read_bytes()
    assert identify(data[:256]) is None
    assert describe_unknown(data[:256]) == "a video: convert it with `cgconvert video`"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".bmp", ".tiff"])
def test_a_picture_is_no_video_of_one_frame(suffix: str, tmp_path: Path, same: str) -> None:
    source = tmp_path / f"a{suffix}"
    source.write_bytes(encode(suffix, noise(32, 32)))
    with pytest.raises(UsageError) as refused:
        plan_video(source, None, same, VideoOptions(), EngineOptions(device="cpu"))
    assert str(refused.value) == f"{source} is a picture: use `cgconvert image`"


def test_who_asks_for_a_former_model_is_told_which_one_is_used(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png")
    note = "photo2monet-tiny is no longer shipped: photo2monet-fast takes its place"
    of_folder = plan_dir(tmp_path / "in", None, "photo2monet-tiny", ImageOptions(), EngineOptions())
    of_file = plan_images([tmp_path / "in/a.png"], None, "photo2monet-tiny", ImageOptions(), EngineOptions())
    for plan in (of_folder, of_file):
        assert plan.card.name == "photo2monet-fast"
        assert plan.notes == (note,)
