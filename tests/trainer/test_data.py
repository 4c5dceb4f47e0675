"""Pictures found, checked, cached and drawn."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from cgconvert.errors import InputError, UsageError
from tests.trainer.conftest import SMALL, draw, make_domain, make_pairs, save
from trainer.config import Config, DataConfig
from trainer.data import batches, pictures
from trainer.data.augment import augment, prepare
from trainer.data.batches import PictureCache, Sampler
from trainer.data.domains import open_data
from trainer.data.pictures import find_images, read_frames, read_image, scan_domain, split_holdout


def test_pictures_of_every_kind_are_found_below_a_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    colour = draw(random, True)
    save(tmp_path / "one.PNG", colour)
    save(tmp_path / "deep" / "er" / "two.jpg", colour)
    save(tmp_path / "grey.png", colour[..., 0])
    save(tmp_path / "alpha.png", np.dstack([colour, np.full(colour.shape[:2], 128, np.uint8)]))
    save(tmp_path / "deep.tif", colour.astype(np.uint16) * 257)
    save(tmp_path / ".hidden.png", colour)
    (tmp_path / "notes.txt").write_text("no picture")
    names = [path.name for path in find_images(tmp_path)]
    assert sorted(names) == ["alpha.png", "deep.tif", "grey.png", "one.PNG", "two.jpg"]
    for path in find_images(tmp_path):
        pixels = read_image(path)
        assert pixels.shape == (48, 48, 3)
        assert pixels.dtype == np.uint8
    assert np.array_equal(read_image(tmp_path / "one.PNG"), colour)


def test_unreadable_files_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_domain(tmp_path, True, 3)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="trainer"):
        logging.getLogger("trainer").propagate = True
        domain = scan_domain(str(tmp_path))
    assert len(domain.pictures) == 3
    assert domain.unreadable == 2
    assert re.search(r"left out: .*broken\.png: not an image, or damaged", caplog.text)
    assert re.search(r"left out: .*empty\.jpg: not an image", caplog.text)
    assert "only 3 pictures" in caplog.text
    assert domain.describe().endswith("3 pictures, 48x48, 2 unreadable")
    with pytest.raises(InputError, match=r"broken\.png: not an image"):
        read_image(tmp_path / "broken.png")


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    make_domain(tmp_path / "one", True, 1)
    with pytest.raises(UsageError, match="1 readable picture; at least 2"):
        scan_domain(str(tmp_path / "one"))
    with pytest.raises(UsageError, match="no such folder"):
        scan_domain(str(tmp_path / "none"))


def make_video(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            pixels = np.full((size[1], size[0], 3), index * 10 % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_video_is_a_domain_of_frames_evenly_taken(tmp_path: Path) -> None:
    video = make_video(tmp_path / "video.mp4", 20)
    domain = scan_domain(str(video), frames_per_video=5)
    assert [picture.frame for picture in domain.pictures] == [2, 6, 10, 14, 18]
    cache = PictureCache(domain.pictures, DataConfig(preprocess="crop", crop_size=32), 2**20)
    for index, picture in enumerate(domain.pictures):
        assert picture.frame is not None
        assert abs(float(cache[index].mean()) - 10 * picture.frame) < 4, "the frame of that number"
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"no\.mp4: cannot be read as a video"):
        read_frames(tmp_path / "no.mp4", count=3)


@pytest.fixture
def frames_alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many decoded frames were held at each new one; their memory is the decoder's, not Python's."""
    counts: list[int] = []
    inner = pictures.iterate_frames

    def counted(*arguments: Any, **named: Any) -> Iterator[tuple[int, np.ndarray]]:
        held: list[weakref.ref[np.ndarray]] = []
        for index, pixels in inner(*arguments, **named):
            held.append(weakref.ref(pixels))
            counts.append(sum(frame() is not None for frame in held))
            yield index, pixels

    for module in (pictures, batches):
        monkeypatch.setattr(module, "iterate_frames", counted)
    return counts


def test_frames_of_a_video_are_not_held_all_at_once(tmp_path: Path, frames_alive: list[int]) -> None:
    video, one = make_video(tmp_path / "video.mp4", 60, (640, 480)), 640 * 480 * 3
    pictures = scan_domain(str(video), frames_per_video=50).pictures
    assert len(frames_alive) == 50
    assert max(frames_alive) <= 2, "the one before and the new one"
    frames_alive.clear()
    config = DataConfig(preprocess="crop", crop_size=32)
    cache = PictureCache(pictures, config, 4 * one)
    assert cache[10].shape == (480, 640, 3)
    assert len(frames_alive) == 11, "what comes after could not be kept"
    assert max(frames_alive) <= 6, "those that are kept, the one before and the new one"
    assert sorted(cache._kept) == [0, 1, 2, 3]
    whole = PictureCache(pictures, config, 60 * one)
    for index in (49, 10, 2, 10):
        assert np.array_equal(cache[index], whole[index])
    assert len(whole._kept) == 50, "decoded together, once"


@pytest.mark.parametrize(
    ("mode", "size", "wanted"),
    [
        ("resize_and_crop", (50, 90), (32, 32)),
        ("crop", (50, 90), (32, 32)),
        ("crop", (20, 90), (32, 32)),
        ("scale_width_and_crop", (50, 90), (32, 32)),
        ("scale_width", (50, 90), (24, 40)),
        ("scale_and_crop", (50, 90), (32, 32)),
        ("none", (50, 90), (48, 88)),
    ],
)
def test_preprocess_modes_give_the_sizes_they_promise(
    mode: str, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    config = DataConfig(preprocess=mode, load_size=40, crop_size=32)
    random = np.random.default_rng(0)
    pixels = draw(random, True, size)
    for _ in range(10):
        image = augment(prepare(pixels, config), config, random)
        assert image.shape == (*wanted, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous


def test_a_crop_is_a_part_of_its_picture_and_half_are_mirrored() -> None:
    pixels = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    pixels[..., 0], pixels[..., 1] = np.mgrid[0:64, 0:64]
    config = DataConfig(preprocess="crop", crop_size=16)
    mirrored = 0
    for seed in range(200):
        image = augment(pixels, config, np.random.default_rng(seed))
        if image[0, 0, 1] > image[0, 1, 1]:
            mirrored += 1
            image = image[:, ::-1]
        top, left = int(image[0, 0, 0]), int(image[0, 0, 1])
        assert np.array_equal(image, pixels[top : top + 16, left : left + 16])
    assert 70 < mirrored < 130


def test_random_scale_covers_its_range() -> None:
    x = np.tile(np.arange(128, dtype=np.uint8) * 2 - 0, (128, 1))
    pixels = np.dstack([x, x, x])
    config = DataConfig(preprocess="scale_and_crop", crop_size=32, scale_min=0.5, scale_max=1.5, flip=False)
    steps = []
    for seed in range(100):
        row = augment(pixels, config, np.random.default_rng(seed))[16, :, 0].astype(float)
        steps.append((row[-4] - row[4]) / 23 / 2)  # source pixels a pixel of the crop
    scales = 1 / np.array(steps)
    assert 0.45 < scales.min() < 0.6
    assert 1.3 < scales.max() < 1.7


def test_an_epoch_shows_each_picture_once_and_numbers_decide_all(tmp_path: Path) -> None:
    folder = make_domain(tmp_path, True, 7)
    pictures = scan_domain(str(folder), warn=False).pictures
    config = DataConfig(preprocess="none", flip=False)
    cache = PictureCache(pictures, config, 2**20)
    sampler = Sampler(cache, config, seed=3, stream=0)
    for epoch in range(3):
        shown = {sampler[7 * epoch + place].tobytes() for place in range(7)}
        assert shown == {cache[index].tobytes() for index in range(7)}
    again = Sampler(PictureCache(pictures, config, 0), config, seed=3, stream=0)
    for number in (20, 3, 11, 0):
        assert np.array_equal(sampler[number], again[number]), "whatever was cached, in whatever order"
    other = Sampler(cache, config, seed=4, stream=0)
    assert any(not np.array_equal(sampler[n], other[n]) for n in range(7))


def test_the_cache_keeps_to_its_bound(tmp_path: Path) -> None:
    pictures = scan_domain(str(make_domain(tmp_path, True, 5)), warn=False).pictures
    one = 48 * 48 * 3
    cache = PictureCache(pictures, DataConfig(preprocess="crop"), 2 * one)
    first = [cache[index].copy() for index in range(5)]
    assert len(cache._kept) == 2
    (tmp_path / "000.png").unlink()
    assert np.array_equal(cache[0], first[0]), "kept: not read again"
    with pytest.raises(InputError):
        PictureCache(pictures, DataConfig(), 0)[0]


def settings(**changes: object) -> Config:
    return Config().with_changes(
        {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    )


def test_processes_share_what_one_would_see(tmp_path: Path) -> None:
    domains = {"a": make_domain(tmp_path / "a", True), "b": make_domain(tmp_path / "b", False)}
    places = {f"data__{name}": str(path) for name, path in domains.items()}
    joined = open_data(settings(run__batch=4, **places), tmp_path).source
    parts = [open_data(settings(run__batch=2, **places), tmp_path, rank, 2).source for rank in (0, 1)]
    for seen in (0, 4, 40):
        whole = joined.batch(seen)
        both = [part.batch(seen) for part in parts]
        for name in ("a", "b"):
            assert torch.equal(whole[name], torch.cat([part[name] for part in both]))


def test_batches_prepared_ahead_come_in_order(tmp_path: Path) -> None:
    a, b = make_domain(tmp_path / "a", True), make_domain(tmp_path / "b", False)
    source = open_data(
        settings(data__a=str(a), data__b=str(b), data__workers=3, run__batch=2), tmp_path
    ).source
    stream = source.stream(10)
    for step in range(8):
        batch, wanted = next(stream), source.batch(10 + 2 * step)
        assert torch.equal(batch["a"], wanted["a"])
        assert torch.equal(batch["b"], wanted["b"])
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["resize_and_crop", "scale_and_crop", "crop"])
@pytest.mark.parametrize("joined", [True, False], ids=["side-by-side", "two-folders"])
def test_pairs_are_augmented_alike(tmp_path: Path, joined: bool, mode: str) -> None:
    pairs = make_pairs(tmp_path / "pairs")
    if joined:
        places: dict[str, object] = {"data__pairs": str(pairs)}
    else:
        for path in find_images(pairs):
            pixels = read_image(path)
            save(tmp_path / "a" / path.name, pixels[:, :48])
            save(tmp_path / "b" / path.name, pixels[:, 48:])
        save(tmp_path / "b" / "alone.png", pixels[:, :48])
        places = {"data__a": str(tmp_path / "a"), "data__b": str(tmp_path / "b")}
    config = settings(
        run__method="pix2pix", data__preprocess=mode, data__load_size=64, data__crop_size=60, **places
    )
    data = open_data(config, tmp_path)
    for seen in range(12):
        batch = data.source.batch(seen)
        assert batch["a"].shape == (1, 3, 60, 60)
        # B is the negative of A, so this holds only where both got the same crop and flip.
        total = batch["a"].int() + batch["b"].int()
        assert (total - 255).abs().max() <= 2


def test_unpaired_names_are_refused_for_pix2pix(tmp_path: Path) -> None:
    a = make_domain(tmp_path / "a", True)
    b = tmp_path / "b"
    for path in find_images(make_domain(tmp_path / "c", False)):
        save(b / f"other-{path.name}", read_image(path))
    with pytest.raises(UsageError, match="no file name is in both folders"):
        open_data(settings(run__method="pix2pix", data__a=str(a), data__b=str(b)), tmp_path)


def test_a_holdout_is_never_trained_on(tmp_path: Path) -> None:
    domain = scan_domain(str(make_domain(tmp_path, True, 20)), warn=False)
    training, holdout = split_holdout(domain, 4)
    assert len(holdout.pictures) == 4
    assert len(training.pictures) == 16
    assert not set(holdout.pictures) & set(training.pictures)
