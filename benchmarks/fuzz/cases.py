"""What is fuzzed: small valid files of every kind, and the part of cgconvert that reads them."""

from __future__ import annotations

import io
import json
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from cgconvert.card import ModelCard
from cgconvert.errors import CgconvertError
from cgconvert.generators import build_generator, size_rule
from cgconvert.host.channels import Worker
from cgconvert.media.picture.codec import (
    FORMATS,
    Picture,
    checked_header,
    decode_picture,
    encode_picture,
)
from cgconvert.media.picture.headers import identify
from cgconvert.media.video import open as opening
from cgconvert.media.video.source import VideoSource
from cgconvert.models.catalog import list_models
from cgconvert.models.files import count_parameters, read_card, write_model
from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, ImageOptions, VideoOptions
from cgconvert.pictures.pipeline import convert_images
from cgconvert.progress import Silent
from cgconvert.video.pipeline import run_video
from cgconvert.video.plan import plan_video
from tests.models import reference_networks as reference
from tests.video.clips import Clip, make_clip, picture

EXACT = EngineOptions("cpu", "eager", "fp32", 1)
PIXEL_LIMIT = 2_000_000
"""Pixels beyond which a file is refused here, so that a case cannot take gigabytes by saying so."""

SUFFIXES = {"jpeg": ".jpg", "model": ".safetensors", "checkpoint": ".pth", "old checkpoint": ".pth"}
WHOLE_WAY = 0.1
"""Part of the pictures and videos that take the whole way of a conversion; others are read only."""


class Wrong(Exception):
    """An outcome that is neither success nor a proper refusal."""


# ---- files to begin with ----------------------------------------------------------------------------


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Valid files by kind; `folder` is for those on the way."""
    found = {**_pictures(), **_videos(folder), **_models(folder)}
    kept = Path(__file__).parents[2] / "tests/data/fuzz"
    for path in sorted(kept.iterdir()) if kept.is_dir() else ():
        kind = path.name.partition("-")[0].replace("_", " ")
        if kind in found:
            found[kind].append(path.read_bytes())  # what failed once is near to what fails next
    return found


def _pictures() -> dict[str, list[bytes]]:
    pixels = picture(0, 24, 17)
    wide = np.dstack((pixels, pixels[:, :, 0])).astype(np.uint16) * 257
    deep = Picture(wide[:, :, :3].copy(), wide[:, :, 3].copy(), depth=16)
    plain = Picture(pixels)
    found = {
        kind: [encode_picture(one, kind)[0] for one in (plain, deep)]
        for kind in ("png", "jpeg", "webp", "tiff", "avif", "bmp")
        if kind in FORMATS
    }
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    extra = {"exif": exif.tobytes(), "dpi": (300, 300), "icc_profile": b"\0" * 128}

    def pillow(kind: str, one: Image.Image, **options: object) -> bytes:
        written = io.BytesIO()
        one.save(written, kind, **options)
        return written.getvalue()

    palette, gray = image.convert("P"), image.convert("L")
    others = [Image.fromarray(picture(n, 24, 17)) for n in (4, 8)]
    found["png"] += [
        pillow("PNG", palette, transparency=3),
        pillow("PNG", gray, transparency=9),
        pillow("PNG", image, exif=extra["exif"], dpi=extra["dpi"]),
        pillow("PNG", image, save_all=True, append_images=others),
    ]
    found["jpeg"] += [
        pillow("JPEG", image, progressive=True, **extra),
        pillow("JPEG", gray),
        pillow("JPEG", image.convert("CMYK")),
    ]
    found["webp"] += [
        pillow("WEBP", image, lossless=True, exif=extra["exif"]),
        pillow("WEBP", image, save_all=True, append_images=others),
    ]
    found["avif"] += [pillow("AVIF", image, save_all=True, append_images=others, speed=10)]
    found["tiff"] += [
        pillow("TIFF", one, compression=compression)
        for one, compression in (
            (image, "raw"),
            (image, "tiff_lzw"),
            (image, "tiff_adobe_deflate"),
            (image, "packbits"),
            (image, "jpeg"),
            (gray, "raw"),
            (palette, "raw"),
            (image.convert("CMYK"), "raw"),
            (image.convert("1"), "group4"),
        )
    ]
    found["gif"] = [pillow("GIF", palette, save_all=True, append_images=others), pillow("GIF", palette)]
    return found


def _videos(folder: Path) -> dict[str, list[bytes]]:
    small = Clip(frames=5, width=48, height=32, options={"crf": "30", "preset": "ultrafast"})
    milliseconds = replace(small, time_base=Fraction(1, 1000), step=40)
    clips = {
        "mp4": [
            replace(small, audio="aac", chapters=True, metadata={"title": "a title"}),
            replace(small, rotation=90, options={"bf": "2", "crf": "30"}),
            replace(small, codec="mpeg4", time_base=Fraction(1, 25), step=1, options={}),
        ],
        "mkv": [
            replace(milliseconds, audio="flac", chapters=True, attachment=b"a note"),
            replace(milliseconds, codec="ffv1", options={}),
        ],
        "webm": [
            replace(milliseconds, codec="libvpx", audio="libopus", options={"crf": "40", "b": "50k"}),
            replace(milliseconds, codec="libvpx-vp9", options={"crf": "50"}),
        ],
        "ts": [
            replace(small, audio="mp2"),
            replace(small, codec="mpeg2video", time_base=Fraction(1, 25), step=1, options={}),
        ],
    }
    return {
        suffix: [
            make_clip(folder / f"seed{number}.{suffix}", clip).read_bytes()
            for number, clip in enumerate(some)
        ]
        for suffix, some in clips.items()
    }


def _models(folder: Path) -> dict[str, list[bytes]]:
    torch.manual_seed(0)
    state = reference.resnet(ngf=1, blocks=1).state_dict()
    unet = build_generator("unet", {"ngf": 1, "depth": 5}).state_dict()
    wrapped = {"epoch": 3, "netG": state, "optimizer": {"lr": 0.1, "betas": (0.5, 0.9), "steps": [1, 2]}}

    def saved(content: object, zipped: bool = True) -> bytes:
        written = io.BytesIO()
        torch.save(content, written, _use_new_zipfile_serialization=zipped)
        return written.getvalue()

    own = []
    for architecture, arguments in (
        ("identity", {}),
        ("resnet", {"ngf": 1, "blocks": 1}),
        ("h2", {"half_channels": 4, "channels": 8, "blocks": 1}),
    ):
        multiple, minimum = size_rule(architecture, arguments)
        card = ModelCard("small", architecture, arguments, size_multiple=multiple, size_minimum=minimum)
        path = folder / "seed.safetensors"
        write_model(path, card, build_generator(architecture, arguments).state_dict())
        own.append(path.read_bytes())
    return {
        "model": own,
        "safetensors": [save({name: tensor.contiguous() for name, tensor in state.items()})],
        "checkpoint": [saved(state), saved(wrapped), saved(unet)],
        "old checkpoint": [saved(state, False), saved(wrapped, False)],
    }


# ---- what reads them --------------------------------------------------------------------------------


def prepare(home: Path) -> None:
    """For a process that carries out cases: its own models, and a bound on what a video's header may say."""
    os.environ["CGCONVERT_HOME"] = str(home)
    opening.OPEN_OPTIONS["max_pixels"] = str(PIXEL_LIMIT)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    av.logging.set_level(None)
    warnings.simplefilter("ignore")  # of zipfile, about names that are there twice


def read_one_picture(path: Path, whole: bool) -> None:
    """Decode a picture and encode it again, or convert it as the command line does."""
    data = path.read_bytes()
    if not whole or _claims_much(data):
        header = checked_header(data, PIXEL_LIMIT)
        result = decode_picture(data, header)
        encode_picture(result, header.format)
        return
    output = path.with_name("out" + path.suffix)
    options = ImageOptions(overwrite=True)
    result = convert_images([path], output, "identity", options, EXACT)
    for failure in result.failures:
        if failure.file != path or not failure.reason or not failure.reason.isprintable():
            raise Wrong(f"a failure that is not one line about the file: {failure}")
        raise CgconvertError(f"{path}: {failure.reason}")
    output.unlink()


def _claims_much(data: bytes) -> bool:
    try:
        checked_header(data, PIXEL_LIMIT)
    except CgconvertError:
        return identify(data) is not None
    return False


def read_one_video(path: Path, whole: bool) -> None:
    """Plan a video and read it all, or convert it."""
    output = path.with_name("out.mkv")
    options = VideoOptions(overwrite=True, resume=False, preset="ultrafast")
    plan = plan_video(path, output, "identity", options, EXACT)
    if whole:
        run_video(plan, Silent())
        output.unlink()
        return
    copied = frozenset(stream.index for stream in plan.streams if stream.action == "copied")
    with VideoSource(path, plan.info, plan.work_size, copied) as source:
        for _ in source:
            pass


def read_one_model(path: Path, whole: bool) -> None:
    """Look at a model file as `models info` and `list` do, load it, and import it."""
    refusal: CgconvertError | None = None
    try:
        card = read_card(path)
        count_parameters(path)
        json.dumps(card.to_dict())
        load_model(path)
    except CgconvertError as error:
        _check_refusal(path, error)
    try:
        import_checkpoint(path, "made", overwrite=True)
        if whole:
            list_models()
            load_model("made")
    except CgconvertError as error:
        refusal = error
    if refusal is not None:
        raise refusal


READERS: dict[str, Callable[[Path, bool], None]] = {
    **dict.fromkeys(("png", "jpeg", "webp", "avif", "tiff", "bmp"), read_one_picture),
    **dict.fromkeys(("mp4", "mkv", "webm", "ts", "gif"), read_one_video),
    **dict.fromkeys(("model", "safetensors", "checkpoint", "old checkpoint"), read_one_model),
}

NAMED = (read_one_video, read_one_model)
"""Readers whose errors name the file; those of pictures get its name from the one who asked."""


def attempt(kind: str, data: bytes, folder: Path, whole: bool) -> str:
    """Read one file of a kind: "converted" or "refused". Raises whatever is neither.

    `folder` is empty before and after.
    """
    path = folder / f"in{SUFFIXES.get(kind, '.' + kind)}"
    path.write_bytes(data)
    reader = READERS[kind]
    outcome = "converted"
    try:
        reader(path, whole)
    except CgconvertError as error:
        outcome = "refused"
        if reader in NAMED:
            _check_refusal(path, error)
        elif not str(error).isprintable() or not str(error):
            raise Wrong(f"a refusal that is not one line of text: {str(error)!r}") from error
    path.unlink()
    if left := [one.name for one in folder.iterdir()]:
        raise Wrong(f"left behind: {left}")
    if any(isinstance(thread, Worker) for thread in threading.enumerate()):
        raise Wrong("a thread is left behind")
    return outcome


def _check_refusal(path: Path, error: CgconvertError) -> None:
    text = str(error)
    if path.name not in text or not text.isprintable() or len(text) > 1000:
        raise Wrong(f"a refusal that is not one line with the file's name: {text!r}") from error
