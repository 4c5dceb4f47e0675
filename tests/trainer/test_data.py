"""Pictures found, checked, cached and drawn."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgconvert.errors import InputError, UsageError
from cgconvert.media.picture.codec import read_picture as read_picture_file
from cgconvert.media.picture.codec import to_8_bit
from cgconvert.media.video.probe import probe
from cgconvert.media.video.random_access import VideoFrames
from cgconvert.media.video.source import VideoSource
from tests.pictures.pictures import chunk, exif, noise, png, smooth
from tests.trainer.conftest import SMALL, draw, make_domain, make_pairs, save
from tests.video.clips import Clip, make_clip
from trainer.config import Config, DataConfig
from trainer.data.augment import augment, prepare
from trainer.data.batches import PictureCache, Sampler
from trainer.data.domains import open_data
from trainer.data.loading import load_pictures
from trainer.data.pictures import Picture, find_images, read_image, read_picture, scan_domain, split_holdout


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
    (tmp_path / "broken.png").write_bytes((tmp_path / "000.png").read_bytes()[:-20])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "old.gif").write_bytes(b"GIF89a")
    with caplog.at_level(logging.WARNING, logger="trainer"):
        logging.getLogger("trainer").propagate = True
        domain = scan_domain(str(tmp_path))
    assert len(domain.pictures) == 3
    assert domain.unreadable == 3
    assert re.search(r"left out: .*broken\.png: cut short: the end of the PNG is missing", caplog.text)
    assert re.search(r"left out: .*empty\.jpg: the file is empty", caplog.text)
    assert re.search(r"left out: .*old\.gif: cut short: the end of the GIF is missing", caplog.text)
    assert "only 3 pictures" in caplog.text
    assert domain.describe().endswith("3 pictures, 48x48, 3 unreadable")
    with pytest.raises(InputError, match=r"broken\.png: cut short"):
        read_image(tmp_path / "broken.png")


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    make_domain(tmp_path / "one", True, 1)
    with pytest.raises(UsageError, match="1 readable picture; at least 2"):
        scan_domain(str(tmp_path / "one"))
    with pytest.raises(UsageError, match="no such folder"):
        scan_domain(str(tmp_path / "none"))


def test_pictures_are_seen_as_a_conversion_sees_them(tmp_path: Path) -> None:
    deep, colour = noise(6, 8, 3, np.uint16), smooth(6, 8)
    (tmp_path / "deep.png").write_bytes(png(deep, 2, 16))
    assert np.array_equal(read_image(tmp_path / "deep.png"), np.rint(deep / 257).astype(np.uint8))
    transparent = np.dstack([colour, np.arange(48, dtype=np.uint8).reshape(6, 8)])
    (tmp_path / "alpha.png").write_bytes(png(transparent, 6))
    assert np.array_equal(read_image(tmp_path / "alpha.png"), colour), "colours as stored, alpha left out"
    turned = png(colour, 2, extra=chunk(b"eXIf", exif(6, 8, 6)))
    (tmp_path / "turned.png").write_bytes(turned)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(colour, -1)), "clockwise"
    for name in ("deep.png", "alpha.png", "turned.png"):
        shown = read_picture_file(tmp_path / name).pixels
        assert np.abs(shown / (np.iinfo(shown.dtype).max / 255) - read_image(tmp_path / name)).max() <= 0.5


@pytest.mark.parametrize(
    "clip",
    [
        Clip(frames=8, rotation=90, tags={"colorspace": 1, "color_range": 2}),
        Clip(frames=8, width=64, height=720),
        Clip(frames=8, codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=0"}),
    ],
    ids=["rotated-full-range-709", "untagged-hd", "ten-bit"],
)
def test_videos_are_seen_as_a_conversion_sees_them(clip: Clip, tmp_path: Path) -> None:
    video = make_clip(tmp_path / "clip.mp4", clip)
    info = probe(video)
    with VideoSource(video, info, (info.width, info.height)) as source:
        wanted = [to_8_bit(frame.pixels) for frame in source]
    changes = {"data__preprocess": "none", "data__flip": False, "data__holdout": 1, "run__batch": 1}
    data = open_data(settings(data__a=str(video), data__b=str(video), **changes), tmp_path)
    assert data.describe()[0] == f"{video}: 7 pictures, {info.width}x{info.height}"
    pictures = data.training["a"].pictures
    seen = {data.source.batch(number)["a"][0].permute(1, 2, 0).numpy().tobytes() for number in range(7)}
    assert seen == {wanted[picture.frame].tobytes() for picture in pictures if picture.frame is not None}
    (held,) = data.holdout["a"].pictures
    assert held.frame is not None
    assert np.array_equal(load_pictures([held], 720)[0], wanted[held.frame])


def test_a_video_is_a_domain_of_frames_evenly_taken(tmp_path: Path) -> None:
    video = make_clip(tmp_path / "video.mp4", Clip(frames=20))
    domain = scan_domain(str(video), frames_per_video=5)
    assert [picture.frame for picture in domain.pictures] == [2, 6, 10, 14, 18]
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"no\.mp4: not a video that can be read"):
        scan_domain(str(tmp_path / "no.mp4"))


def test_a_frame_that_is_gone_is_said(tmp_path: Path) -> None:
    video = make_clip(tmp_path / "video.mp4", Clip(frames=4))
    cache = PictureCache((Picture(video, 3), Picture(video, 9)), DataConfig(), 0)
    with pytest.raises(InputError, match=r"video\.mp4: frame 9 cannot be decoded; has the file changed\?"):
        cache[1]


@pytest.fixture
def frames_read(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[np.ndarray]]:
    """Every frame that was read from a video since the list was last cleared."""
    given: list[weakref.ref[np.ndarray]] = []
    inner = VideoFrames.read

    def watched(self: VideoFrames, numbers: Any) -> Iterator[tuple[int, np.ndarray]]:
        for number, pixels in inner(self, numbers):
            given.append(weakref.ref(pixels))
            assert sum(frame() is not None for frame in given) <= held_at_most, "not all at once"
            yield number, pixels

    held_at_most = 6
    monkeypatch.setattr(VideoFrames, "read", watched)
    return given


def test_frames_of_a_video_are_kept_up_to_a_bound(
    tmp_path: Path, frames_read: list[weakref.ref[np.ndarray]]
) -> None:
    video, one = make_clip(tmp_path / "video.mp4", Clip(frames=20, width=64, height=48)), 64 * 48 * 3
    pictures = scan_domain(str(video)).pictures
    assert len(frames_read) == 20, "each is looked at once"
    config = DataConfig(preprocess="crop", crop_size=32)
    frames_read.clear()
    cache = PictureCache(pictures, config, 4 * one)
    assert cache[10].shape == (48, 64, 3)
    assert len(frames_read) == 5 + 1, "those that fit, the first that does not, and the one asked for"
    assert sorted(cache._kept) == [0, 1, 2, 3]
    frames_read.clear()
    assert [cache[index].shape for index in (2, 0, 19)] == [(48, 64, 3)] * 3
    assert len(frames_read) == 1, "two are kept, the last is sought alone"
    for index in (19, 10, 2, 10):
        assert np.array_equal(cache[index], read_picture(pictures[index]))


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


def test_batches_for_a_card_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as one piece of memory: torch copies others by way of memory that is not pinned."""
    pinned: list[torch.Tensor] = []

    def pin(part: torch.Tensor) -> torch.Tensor:
        pinned.append(part)
        return part

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    pairs = make_pairs(tmp_path / "pairs")
    config = settings(run__method="pix2pix", data__pairs=str(pairs), run__batch=2)
    wanted = open_data(config, tmp_path).source.batch(4)
    assert pinned == []
    batch = open_data(config, tmp_path, pinned=True).source.batch(4)
    assert [id(part) for part in batch.values()] == [id(part) for part in pinned]
    for name, part in batch.items():
        assert torch.equal(part, wanted[name])
        assert part.is_contiguous() or part.is_contiguous(memory_format=torch.channels_last)
