"""Results that change where their sources do: strokes that stand still, and nothing left of what is gone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from cgconvert.media.video.steady import Steadier

HEIGHT, WIDTH = 64, 96
STROKES = 24.0
"""How far the strokes of the network in these tests go above and below the picture, in levels."""


def background(seed: int = 1) -> np.ndarray:
    """A picture that has something to hold on to everywhere, in levels from 40 to 200."""
    random = np.random.default_rng(seed)
    picture = np.zeros((HEIGHT, WIDTH, 3))
    for size in (4, 8, 16):
        grid = random.uniform(0, 1, (HEIGHT // size + 1, WIDTH // size + 1, 3))
        picture += np.kron(grid, np.ones((size, size, 1)))[:HEIGHT, :WIDTH]
    return 40 + 160 * picture / 3


def painted(source: np.ndarray, number: int) -> np.ndarray:
    """What a network that flickers makes of a frame: other strokes each time, none where it is black."""
    strokes = np.random.default_rng(number).choice([-1, 1], (HEIGHT // 2, WIDTH // 2, 1))
    return rounded(source + np.minimum(source, STROKES) * np.kron(strokes, np.ones((2, 2, 1))))


def rounded(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def steadied(
    source: Callable[[int], np.ndarray], frames: int, strength: float = 0.65
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The results of the network, and what becomes of them."""
    steadier = Steadier(strength)
    results = [painted(source(number), number) for number in range(frames)]
    steady = [steadier.step(rounded(source(number)), results[number]) for number in range(frames)]
    return results, steady


def flicker(frames: list[np.ndarray]) -> float:
    """Mean squared change from frame to frame."""
    return float(np.mean([(a.astype(float) - b) ** 2 for a, b in pairwise(frames)]))


def smooth(levels: np.ndarray, edge: int = 8) -> np.ndarray:
    """Means of squares, in which strokes that go up and down as often cancel out."""
    return levels.astype(float).reshape(HEIGHT // edge, edge, WIDTH // edge, edge, 3).mean((1, 3))


def strength(frame: np.ndarray) -> float:
    """How strong the strokes are that a frame has."""
    return float(np.abs(np.diff(frame.astype(float), axis=1)).mean())


def test_still_strokes_stand_still_and_stay_sharp() -> None:
    picture = background()
    grain = np.random.default_rng(9)
    results, steady = steadied(lambda number: picture + grain.normal(0, 1.0, picture.shape), 12)
    assert flicker(steady[2:]) < flicker(results[2:]) / 50
    assert strength(steady[-1]) > 0.95 * strength(results[-1])


def test_a_moving_camera_takes_its_strokes_along() -> None:
    wide = np.concatenate([background(1), background(2)], axis=1)
    results, steady = steadied(lambda number: wide[:, 2 * number : 2 * number + WIDTH], 12)
    moved = [flicker([a[:, 2:], b[:, :-2]]) for a, b in pairwise(steady[3:])]
    free = [flicker([a[:, 2:], b[:, :-2]]) for a, b in pairwise(results[3:])]
    assert np.mean(moved) < np.mean(free) / 8
    assert strength(steady[-1]) > 0.9 * strength(results[-1])


def test_what_has_passed_leaves_nothing_behind() -> None:
    """A bright square crosses a still picture; where it was, the result is the network's again."""
    picture = background()

    def source(number: int) -> np.ndarray:
        frame = picture.copy()
        left = 8 * number
        if left < WIDTH - 16:
            frame[24:40, left : left + 16] = 250
        return frame

    _, steady = steadied(source, 16)
    rest = np.abs(smooth(steady[-1]) - smooth(picture)).max()
    # Strokes of 16 places on average leave 24 / 4 levels; a square that is left behind would be 50 to 200.
    assert rest < 20


def test_a_cut_shows_nothing_of_the_scene_before() -> None:
    scenes = background(1), 240 - background(7)
    results, steady = steadied(lambda number: scenes[number >= 5], 7)
    assert np.array_equal(steady[5], results[5])
    assert not np.array_equal(steady[6], results[6])


def test_a_flash_lasts_one_frame() -> None:
    picture = background()
    results, steady = steadied(lambda number: picture + 120 * (number == 4), 7)
    assert np.array_equal(steady[4], results[4])
    assert np.array_equal(steady[5], results[5])


def test_a_fade_is_followed() -> None:
    """Two levels a frame down to black: the result is never two frames behind, and ends black."""
    picture = background()
    frames = 80
    _, steady = steadied(lambda number: picture * max(0.0, 1 - number / 60), frames)
    for number in (20, 40):
        assert abs(steady[number].mean() - picture.mean() * (1 - number / 60)) < 4
    assert steady[-1].mean() < 1


def test_a_dissolve_leaves_nothing_of_the_scene_before() -> None:
    """Twelve frames from one scene to another, both with structure everywhere and no flat light."""
    scenes = background(1), background(7)

    def source(number: int) -> np.ndarray:
        share = min(max((number - 4) / 12, 0), 1)
        return (1 - share) * scenes[0] + share * scenes[1]

    results, steady = steadied(source, 22)
    gone = smooth(scenes[0]) - smooth(scenes[1])
    left = [
        ((smooth(got) - smooth(wanted)) * gone).sum() / (gone**2).sum()
        for got, wanted in zip(steady, results, strict=True)
    ]
    # A third was left before whole pictures that change were looked for.
    assert max(left) < 0.2
    assert left[-1] < 0.12
    assert flicker(steady[-3:]) < 0.1 * flicker(results[-3:]), "and strokes stand still again"


def test_a_scene_that_comes_out_of_black_is_seen_at_once() -> None:
    """There is nothing that could be made lighter, and little change in levels."""
    results, steady = steadied(lambda number: background() * max(0.0, (number - 3) / 120), 12)
    assert steady[2].mean() < 1
    for number in range(4, 12):
        assert 0.9 < steady[number].mean() / results[number].mean() < 1.1
        assert strength(steady[number]) > 0.9 * strength(results[number])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_run_that_goes_on_makes_the_same(dtype: type) -> None:
    picture = background()
    scale = 1 if dtype is np.uint8 else 257
    frames = [
        (
            rounded(np.roll(picture, number, 1)).astype(dtype) * scale,
            painted(picture, number).astype(dtype) * scale,
        )
        for number in range(8)
    ]
    whole, first = Steadier(0.65), Steadier(0.65)
    for seen, result in frames[:4]:
        assert whole.step(seen, result).dtype == dtype
        first.step(seen, result)
    whole.checkpoint()
    second = Steadier(0.65)
    assert second.restore(first.checkpoint())
    for seen, result in frames[4:]:
        assert np.array_equal(whole.step(seen, result), second.step(seen, result))


def test_a_checkpoint_changes_nothing_that_is_seen() -> None:
    picture = background()
    one, other = Steadier(0.65), Steadier(0.65)
    for number in range(6):
        seen, result = rounded(picture), painted(picture, number)
        a, b = one.step(seen, result), other.step(seen, result)
        assert np.abs(a.astype(int) - b).max() <= 1
        other.checkpoint()


@pytest.mark.parametrize("state", [None, b"", b"PK\3\4 something else"])
def test_a_state_that_is_none_is_told(state: bytes | None) -> None:
    assert not Steadier(0.65).restore(state)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 40), (17, 33), (3, 200)])
def test_any_size(height: int, width: int) -> None:
    random = np.random.default_rng(5)
    seen = random.integers(0, 255, (height, width, 3), np.uint8)
    steadier = Steadier(0.65)
    for _ in range(3):
        assert steadier.step(seen, random.integers(0, 255, (height, width, 3), np.uint8)).shape == seen.shape
