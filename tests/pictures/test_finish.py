"""Results finished with their sources: strength, the source's colours, detail, and the size of strokes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cgconvert.card import ModelCard
from cgconvert.cli import main
from cgconvert.errors import OutputError, UsageError
from cgconvert.finish import LUMA_BT709, Finish
from cgconvert.media.picture import finish as finishing
from cgconvert.media.picture.codec import read_picture
from cgconvert.media.picture.finish import detail_gain, enlarged_rows, finished
from cgconvert.media.picture.resize import resized
from cgconvert.models.catalog import installed_path
from cgconvert.models.files import read_card, read_weights, write_model
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.pipeline import convert_images
from cgconvert.pictures.plan import plan_dir
from cgconvert.sizes import network_size
from tests.pictures.pictures import noise, png, smooth
from tests.pictures.runs import fill, run


def one_colour(colour: tuple[int, ...], edge: int, dtype: type = np.uint8) -> np.ndarray:
    return np.full((edge, edge, 3), colour, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("result", [(24, 40), (7, 11), (48, 80)])
@pytest.mark.parametrize("keep", [False, True])
def test_strength_0_is_the_source_bit_for_bit(dtype: type, result: tuple[int, int], keep: bool) -> None:
    source = noise(24, 40, dtype=dtype)
    painted = noise(*result, dtype=np.uint16, seed=1)
    np.testing.assert_array_equal(finished(source, painted, Finish(0.0, keep)), source)


@pytest.mark.parametrize(("strength", "value"), [(0.25, 125), (0.5, 150), (1.0, 200)])
@pytest.mark.parametrize("edge", [4, 16])
def test_strength_is_a_share_of_the_way(strength: float, value: int, edge: int) -> None:
    source, painted = one_colour((100,) * 3, 16), one_colour((200 * 257,) * 3, edge, np.uint16)
    np.testing.assert_array_equal(finished(source, painted, Finish(strength)), one_colour((value,) * 3, 16))


def test_what_lies_between_two_levels_is_dithered() -> None:
    done = finished(one_colour((100,) * 3, 16), one_colour((101 * 257,) * 3, 16, np.uint16), Finish(0.25))
    assert set(done.ravel()) == {100, 101}
    assert done.mean() == pytest.approx(100.25, abs=0.04), "the pattern spans 0.9 of a step"
    assert (np.ptp(done, axis=2) == 0).all(), "gray stays gray"


def test_kept_colours_take_only_light_from_the_result() -> None:
    """Y' is 0.2126 * 200 + 0.7152 * 100 + 0.0722 * 60 = 118.372 in the source and 150 in the result."""
    source, painted = one_colour((200, 100, 60), 8), one_colour((150 * 257,) * 3, 8, np.uint16)
    done = finished(source, painted, Finish(keep_colours=True)).astype(float)
    np.testing.assert_allclose(done.mean((0, 1)), np.array([200, 100, 60]) + 150 - 118.372, atol=0.04)


def test_kept_colours_are_those_of_every_pixel() -> None:
    """Cb and Cr of BT.709 are multiples of B - Y' and R - Y'; half a level of rounding is in each channel."""
    source = noise(32, 32).astype(int) // 4 + 96
    painted = noise(8, 8, dtype=np.uint16, seed=1) // 8 + 30000
    done = finished(source.astype(np.uint8), painted, Finish(keep_colours=True)).astype(int)
    for channel in (0, 2):
        before = source[..., channel] - source @ LUMA_BT709
        after = done[..., channel] - done @ LUMA_BT709
        assert np.abs(after - before).max() <= 1.5


def test_strips_are_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).random((9, 14, 3)).astype(np.float32)
    whole = cv2.resize(picture, (50, 33), interpolation=cv2.INTER_CUBIC)
    parts = [enlarged_rows(picture, 33, 50, *rows) for rows in ((0, 10), (10, 33))]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    source, painted = noise(90, 50), noise(30, 17, dtype=np.uint16, seed=1)
    expected = finished(source, painted, Finish(0.7))
    monkeypatch.setattr(finishing, "STRIP_PIXELS", 50 * 13)
    np.testing.assert_array_equal(finished(source, painted, Finish(0.7)), expected)


def photograph() -> np.ndarray:
    """Areas of different light with sharp edges, and fine texture on one side."""
    rows, columns = np.mgrid[0:96, 0:128]
    light = np.where((rows // 24 + columns // 32) % 2, 180, 70)
    texture = np.where(columns < 64, 40 * ((rows + columns) % 2), 0)
    return np.repeat((light + texture)[..., None], 3, 2).astype(np.uint8)


def test_edges_that_a_result_keeps_are_sharp() -> None:
    """A network that changes only contrast, seen at a quarter of the size. In the left half is texture,
    which averages to nothing where the network sees it, but comes back where the edges are followed."""
    source = photograph()
    painted = (resized(source, 32, 24).astype(np.float64) * 257 * 0.8 + 5000).astype(np.uint16)
    done = finished(source, painted, Finish())
    plain = resized((painted // 257).astype(np.uint8), 128, 96)
    ideal = source * 0.8 + 5000 / 257
    errors = [np.abs(picture - ideal).mean((0, 2)) for picture in (done, plain)]
    for half in (slice(None, 64), slice(64, None)):
        assert errors[0][half].mean() < 0.3 * errors[1][half].mean()


def test_strokes_of_the_network_s_own_stay_as_they_are() -> None:
    """The gain is what the result follows of its source: nothing in flat areas and of what has no part in
    it, all of it where both are the same up to a constant."""
    light = np.tile(np.arange(0, 160, 10, np.float32), (16, 1))
    assert detail_gain(light, light + 20, 1.0)[4:-4, 4:-4] == pytest.approx(200 / 225)
    assert detail_gain(light, light * 0, 1.0).max() == 0
    assert detail_gain(light, -light, 1.0).max() == 0
    strokes = np.random.default_rng(0).normal(0, 30, light.shape).astype(np.float32)
    assert detail_gain(light * 0 + 90, strokes, 1.0).max() < 1e-5, "float32 rounds"
    np.testing.assert_allclose(
        detail_gain(light * 257, light * 128.5, 257.0), detail_gain(light, light / 2, 1.0), atol=1e-5
    )


CARD = ModelCard("look", "identity", work_size=360)


@pytest.mark.parametrize(
    ("work_size", "stroke", "size", "expected"),
    [
        (None, None, (4000, 3000), (480, 360)),
        (None, None, (3000, 4000), (360, 480)),
        (None, "medium", (1920, 1080), (640, 360)),
        (None, "large", (1920, 1080), (320, 180)),
        (None, "fine", (1920, 1080), (1280, 720)),
        (None, 1.5, (1920, 1080), (426, 240)),
        (None, "3", (1920, 1080), (214, 120)),
        (None, "fine", (640, 480), (640, 480)),
        (None, None, (320, 240), (320, 240)),
        ("0.5x", None, (4000, 3000), (2000, 1500)),
        ("1x", None, (4001, 3001), (4001, 3001)),
        ("540p", None, (1920, 1080), (960, 540)),
    ],
)
def test_the_size_that_the_network_sees(
    work_size: str | None, stroke: str | float | None, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert network_size(work_size, stroke, CARD, size, size) == expected


def test_the_own_stroke_of_a_model_without_a_work_size() -> None:
    card = replace(CARD, work_size=None)
    assert network_size(None, None, card, (1920, 1080), (1920, 1080)) == (1920, 1080)
    assert network_size(None, "large", card, (1920, 1080), (1920, 1080)) == (960, 540)
    card = replace(card, native_size=256)
    assert network_size(None, None, card, (1920, 1080), (1920, 1080)) == (1920, 1080)
    assert network_size(None, "medium", card, (1920, 1080), (1920, 1080)) == (456, 256)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.5}, "`strength=1.5` is not a number from 0 to 1"),
        ({"strength": float("nan")}, "`strength=nan` is not a number from 0 to 1"),
        (
            {"stroke": "huge"},
            "`stroke='huge'` is unknown: use fine, medium, large, or a number from 0.1 to 10",
        ),
        ({"stroke": 20}, "`stroke=20` is unknown: use fine, medium, large, or a number from 0.1 to 10"),
        (
            {"stroke": "fine", "work_size": "360p"},
            "`work_size` and `stroke` say the same in two ways: use one of them",
        ),
        ({"work_size": "12"}, "`work_size='12'` is not a size: use WIDTHxHEIGHT, 720p or 0.5x"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, object], message: str, tmp_path: Path, same: str, exact: EngineOptions
) -> None:
    (tmp_path / "a.png").write_bytes(png(noise(8, 8), 2))
    with pytest.raises(UsageError) as caught:
        convert_images([tmp_path / "a.png"], None, same, ImageOptions(**options), exact)  # type: ignore[arg-type]
    assert str(caught.value) == message


def with_work_size(model: str, lines: int) -> str:
    """The same model, advised to see so many lines."""
    path = installed_path(model)
    card = read_card(path)
    write_model(
        installed_path("advised"),
        card.with_changes(name="advised", work_size=lines),
        read_weights(path, card),
    )
    return "advised"


def converted(
    source: np.ndarray, model: str, engine: EngineOptions, folder: Path, **options: object
) -> np.ndarray:
    """What `cgconvert image` makes of a picture."""
    cv2.imwrite(str(folder / "in.png"), source[..., ::-1])
    asked = ImageOptions(overwrite=True, **options)  # type: ignore[arg-type]
    convert_images([folder / "in.png"], folder / "out.png", model, asked, engine)
    return read_picture(folder / "out.png").pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_is_seen_at_the_advised_size(
    dtype: type, tmp_path: Path, small: str, exact: EngineOptions
) -> None:
    """Network and finish are those of Python's `convert`; a small enough picture is seen as it is."""
    advised = with_work_size(small, 24)
    source = noise(48, 72, dtype=dtype)
    done = converted(source, advised, exact, tmp_path)
    expected = load_model(advised).convert(source, stroke="medium").astype(int)
    # The engine has joined layers, which rounds otherwise in float32.
    assert np.abs(done - expected).max() <= (1 if dtype == np.uint8 else 3)
    assert np.abs(expected - load_model(advised).convert(source)).max() > 10
    whole = converted(source, advised, exact, tmp_path, work_size="1x")
    np.testing.assert_array_equal(whole, converted(source, small, exact, tmp_path))
    corner = np.ascontiguousarray(source[:24])
    np.testing.assert_array_equal(
        converted(corner, advised, exact, tmp_path), converted(corner, small, exact, tmp_path)
    )


@pytest.mark.parametrize("work_size", [None, "0.5x", "2x"])
def test_strengths_of_a_picture(
    work_size: str | None, tmp_path: Path, small: str, exact: EngineOptions
) -> None:
    source = smooth(32, 48)
    none, half, full = (
        converted(source, small, exact, tmp_path, work_size=work_size, strength=s) for s in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(none, source)
    assert np.abs(full.astype(int) - source).max() > 10
    assert np.abs(half - (source.astype(float) + full) / 2).max() <= 1.5
    if work_size is None:
        np.testing.assert_array_equal(full, load_model(small).convert(source))


def test_pictures_that_are_finished_and_others_in_one_folder(
    tmp_path: Path, small: str, exact: EngineOptions
) -> None:
    """Those of 24 lines are seen as they are, and larger ones at that size: the padded sizes are one."""
    advised = with_work_size(small, 24)
    for number in range(6):
        size = (48, 72) if number % 2 else (24, 36)
        path = tmp_path / "in" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(noise(*size, seed=number), 2))
    result = run(tmp_path / "in", tmp_path / "out", advised, replace(exact, batch=2))
    assert (result.converted, result.failed) == (6, 0)
    for number in range(6):
        source = read_picture(tmp_path / "in" / f"{number}.png").pixels
        expected = load_model(advised).convert(source, stroke="medium").astype(int)
        done = read_picture(tmp_path / "out" / f"{number}.png").pixels
        assert np.abs(done - expected).max() <= 1, "a batch may round otherwise"


def test_results_of_another_look_are_refused(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    fill(tmp_path / "in", 2)
    result = run(tmp_path / "in", tmp_path / "out", same, exact, strength=0.5, stroke="large")
    look = {"strength": 0.5, "keep_colours": False, "work_size": None, "stroke": 2.0}
    assert result.to_dict()["look"] == look
    assert json.loads((tmp_path / "out/.cgconvert.json").read_bytes())["look"] == look
    again = run(tmp_path / "in", tmp_path / "out", same, exact, strength=0.5, stroke=2.0)
    assert (again.converted, again.skipped) == (0, 2)
    with pytest.raises(OutputError) as caught:
        run(tmp_path / "in", tmp_path / "out", same, exact, keep_colours=True)
    assert str(caught.value) == (
        f"{tmp_path / 'out'} holds results of same with another look (strength 0.5, keep colours False, "
        "stroke 2.0): choose another `output`, or `overwrite` to replace them"
    )


def test_a_folder_from_before_there_were_looks_goes_on(
    tmp_path: Path, same: str, exact: EngineOptions
) -> None:
    fill(tmp_path / "in", 1)
    run(tmp_path / "in", tmp_path / "out", same, exact)
    marker = tmp_path / "out/.cgconvert.json"
    made = json.loads(marker.read_bytes())
    del made["look"]
    marker.write_text(json.dumps(made))
    assert run(tmp_path / "in", tmp_path / "out", same, exact).skipped == 1


def test_the_command_line(tmp_path: Path, small: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = smooth(32, 48)
    (tmp_path / "a.png").write_bytes(png(source, 2))
    asked = ["image", str(tmp_path / "a.png"), "-m", small, "--strength", "0", "--stroke", "2"]
    with pytest.raises(SystemExit) as left:
        main([*asked, "--dry-run"])
    assert (left.value.code or 0) == 0
    told = capsys.readouterr().out
    assert "look       strength 0\n" in told
    assert "network    sees pictures at 0.5x; device auto" in told
    with pytest.raises(SystemExit) as left:
        main([*asked, "--quiet", "--engine", "eager"])
    assert (left.value.code or 0) == 0
    np.testing.assert_array_equal(read_picture(tmp_path / "a.small.png").pixels, source)
    with pytest.raises(SystemExit) as left:
        main(["dir", str(tmp_path), "-m", small, "--strength", "2"])
    assert left.value.code == 2
    assert "Error: --strength 2 is not a number from 0 to 1\n" in capsys.readouterr().err


def test_the_plan_says_what_the_network_sees(tmp_path: Path, small: str, exact: EngineOptions) -> None:
    fill(tmp_path / "in", 1)

    def network(model: str, **options: object) -> str:
        plan = plan_dir(tmp_path / "in", None, model, ImageOptions(**options), exact)  # type: ignore[arg-type]
        return plan.describe_sizes()

    assert network(small) == "sees all of a picture"
    assert network(small, stroke="large") == "sees pictures at 0.5x"
    assert network(small, work_size="540p") == "sees pictures at 540p"
    assert network(with_work_size(small, 360)) == "sees pictures at 360 lines"
    assert network("advised", stroke=1.5) == "sees pictures at 240 lines"
