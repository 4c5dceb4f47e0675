"""`cgconvert preview`: what the sheet shows, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cgconvert.cli import cgconvert, run
from cgconvert.finish import Finish
from cgconvert.media.picture.sheet import GAP, LINE, MARGIN, contact_sheet
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions
from cgconvert.preview.looks import Looks
from cgconvert.preview.shots import Shot, read_frame_shot
from tests.pictures.pictures import smooth
from tests.trainer.conftest import save
from tests.video.clips import Clip, make_clip, picture
from tests.video.conftest import exact, small_model  # noqa: F401 - fixtures


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        run(cgconvert, "cgconvert", [str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_the_sheet_has_a_row_for_each_time_and_a_column_for_each_look_and_strength(
    tmp_path: Path,
    small_model: str,  # noqa: F811
) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=50, width=96, height=64))
    assert (
        call("preview", clip, "--models", "identity,small", "--at", "0:00.5,1.2", "--strengths", "0,1") == 0
    )
    sheet = cv2.imread(str(tmp_path / "in.preview.png"))[:, :, ::-1]
    assert sheet.shape == (
        2 * MARGIN + 2 * LINE + 2 * (64 + LINE) + GAP,
        2 * MARGIN + 5 * 96 + 4 * GAP,
        3,
    )

    def cell(row: int, column: int) -> np.ndarray:
        y = MARGIN + 3 * LINE + row * (64 + LINE + GAP)
        x = MARGIN + column * (96 + GAP)
        return sheet[y : y + 64, x : x + 96].astype(int)

    # 25 frames/s: 0.5 s lies between frames 12 and 13, and the first at or after it is 13; 1.2 s is frame 30.
    for row, number in enumerate((13, 30)):
        # 12 of 255 is what crf 12 and 4:2:0 lose of this smooth picture; a neighbouring frame is 30 off.
        assert np.abs(cell(row, 0) - picture(number, 96, 64)).max() <= 12
        # identity at 0 and 1, and small at 0, are the source itself
        assert np.abs(cell(row, 2) - cell(row, 0)).max() == 0
        assert np.array_equal(cell(row, 1), cell(row, 0))
        assert np.array_equal(cell(row, 3), cell(row, 0))
        assert np.abs(cell(row, 4) - cell(row, 0)).mean() > 10


def test_a_shot_is_painted_as_a_picture_is_converted(small_model: str, exact: EngineOptions) -> None:  # noqa: F811
    """For every combination of options, and the second time from what is kept."""
    pixels = smooth(64, 96)
    shot = Shot(Path("a.png"), "a", pixels)
    model = load_model(small_model)
    looks = Looks(exact)
    for finish, stroke in (
        (Finish(), None),
        (Finish(0.5), None),
        (Finish(1, True), None),
        (Finish(), "large"),
    ):
        painted = looks.paint(shot, small_model, finish, stroke)
        wanted = model.convert(
            pixels, strength=finish.strength, keep_colours=finish.keep_colours, stroke=stroke
        )
        # 1 of 255: `convert` rounds a plain result once, and the preview keeps 16 bits before that
        assert np.abs(painted.astype(int) - wanted).max() <= 1
    assert len(looks.results) == 2  # strength and colours need no network again
    looks.close()


def test_pictures_of_a_folder_are_rows(tmp_path: Path, small_model: str) -> None:  # noqa: F811
    folder = tmp_path / "imgs"
    folder.mkdir()
    for number in range(8):
        save(folder / f"{number}.png", smooth(32, 40 + number))
    assert call("preview", folder, "--models", "small", "-o", tmp_path / "s.png", "--quiet") == 0
    height = cv2.imread(str(tmp_path / "s.png")).shape[0]
    assert height == 2 * MARGIN + 2 * LINE + 6 * (32 + LINE) + 5 * GAP  # six of eight


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--at", "9:00"], 2, "9:00 is past the end of"),
        (["--strengths", "much"], 2, "--strengths 'much' is no list of numbers"),
        (["--strengths", "2"], 2, "--strength 2 is not a number from 0 to 1"),
        (["--models", "nothing"], 3, "no model named 'nothing'"),
        (["-o", "sheet.jpg"], 2, "its name ends in .png"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=3))
    assert call("preview", clip, *arguments) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [clip]


def test_a_sheet_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    save(tmp_path / "a.png", smooth(20, 24))
    there = tmp_path / "a.preview.png"
    there.write_bytes(b"mine")
    assert call("preview", tmp_path / "a.png", "--models", "identity") == 4
    assert there.read_bytes() == b"mine"
    assert call("preview", tmp_path / "a.png", "--models", "identity", "--overwrite") == 0
    assert there.read_bytes()[:4] == b"\x89PNG"


def test_the_time_for_which_the_last_frame_is_shown_shows_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=10))
    shown = read_frame_shot(clip, 0.39).pixels.astype(int)
    assert np.abs(shown - picture(9, 96, 64)).max() <= 12  # what crf 12 and 4:2:0 lose


def test_rotated_video_is_upright(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=2, width=96, height=64, rotation=90))
    assert read_frame_shot(clip, 0).pixels.shape == (96, 64, 3)


def test_labels_that_are_too_long_are_cut() -> None:
    sheet = contact_sheet("t" * 500, ["c" * 500], ["r" * 500], [[np.zeros((10, 30, 3), np.uint8)]])
    assert sheet.shape == (2 * MARGIN + 3 * LINE + 10, 2 * MARGIN + 30, 3)
    assert (sheet[:, -MARGIN:] == 255).all()  # no letter in the margin
