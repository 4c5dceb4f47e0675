"""Draw the pictures of the gallery: looks side by side on photographs, and on a clip as a short loop.

    python benchmarks/training/gallery.py MODEL... --pictures PHOTO... --sheet docs/looks.jpg
    python benchmarks/training/gallery.py MODEL... --clip CLIP --loop docs/looks.webp

The sheet has a row for each photograph: the photograph, then each look of it. Of a video the frame number
`--frame` is shown. Photographs are cut to the sheet's proportions and reduced, and every look is made of that
by `cgconvert.convert_video`'s or `load_model`'s defaults. The loop shows the clip and its looks in a grid,
each converted at full size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cgconvert import VideoOptions, convert_video, load_model
from cgconvert.media.picture.codec import to_8_bit
from cgconvert.media.picture.formats import VIDEO_SUFFIXES
from trainer.data.pictures import video_frames

Pixels = NDArray[np.uint8]
GAP = 4  # pixels between the pictures of a sheet


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest central part of these proportions, reduced to the size."""
    scale = max(width / image.width, height / image.height)
    cut_width, cut_height = width / scale, height / scale
    left, top = (image.width - cut_width) / 2, (image.height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def labelled(image: Image.Image, text: str) -> Image.Image:
    """A copy with a small label in its lower left corner."""
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    left, top, right, bottom = draw.textbbox((0, 0), text)
    edge = copy.height - (bottom - top) - 10
    draw.rectangle((0, edge, right - left + 10, copy.height), fill=(0, 0, 0))
    draw.text((5 - left, edge + 5 - top), text, fill=(255, 255, 255))
    return copy


def joined(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures of one size in rows and columns, with a white gap between them."""
    width, height = rows[0][0].size
    columns = max(len(row) for row in rows)
    size = (columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for number, row in enumerate(rows):
        for column, image in enumerate(row):
            sheet.paste(image, (column * (width + GAP), number * (height + GAP)))
    return sheet


def opened(path: Path, frame: int) -> Image.Image:
    """A picture file, or that frame of a video."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return Image.open(path).convert("RGB")
    ((_, pixels),) = video_frames(path).read([frame])
    return Image.fromarray(to_8_bit(pixels))


def draw_sheet(
    models: list[str], pictures: list[Path], frame: int, size: tuple[int, int], output: Path
) -> None:
    networks = [load_model(model) for model in models]
    rows = []
    for picture in pictures:
        photograph = fitted(opened(picture, frame), *size)
        looks = [Image.fromarray(network.convert(np.asarray(photograph))) for network in networks]
        names = ["photograph", *(network.card.name for network in networks)]
        row = [photograph, *looks]
        rows.append(
            [labelled(image, name) for image, name in zip(row, names, strict=True)] if not rows else row
        )
        print(picture.name, flush=True)
    joined(rows).save(output, quality=88, optimize=True)


def draw_loop(models: list[str], clip: Path, arguments: argparse.Namespace, output: Path) -> None:
    """An animated WebP of the clip and its looks, two in a row, forwards and then backwards."""
    seconds, rate = arguments.seconds, arguments.rate
    sets: list[list[Image.Image]] = []
    with tempfile.TemporaryDirectory() as folder:
        videos, frames = [clip], 0
        for number, model in enumerate(models):
            result = Path(folder) / f"{number}.mkv"
            report = convert_video(clip, result, model, VideoOptions(end=seconds, crf=10))
            videos.append(result)
            frames = report.frames_out
        wanted = np.linspace(0, frames - 1, max(2, round(seconds * rate))).round().astype(int)
        for video, name in zip(videos, ["source", *models], strict=True):
            read = [to_8_bit(pixels) for _, pixels in video_frames(video).read(sorted(set(wanted.tolist())))]
            sets.append([labelled(fitted(Image.fromarray(p), *arguments.size), name) for p in read])
    shown = [
        joined([list(now[at : at + 2]) for at in range(0, len(now), 2)]) for now in zip(*sets, strict=True)
    ]
    shown += shown[-2:0:-1]  # back again, so that the loop has no jump
    shown[0].save(
        output,
        save_all=True,
        append_images=shown[1:],
        duration=round(1000 / rate),
        loop=0,
        quality=60,
        method=6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--pictures", nargs="*", default=[], type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--loop", type=Path)
    parser.add_argument("--frame", type=int, default=30, help="of videos among the pictures")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 270), help="of each picture")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=10.0, help="pictures a second of the loop")
    arguments = parser.parse_args()
    if arguments.sheet:
        size = tuple(arguments.size)
        draw_sheet(arguments.models, arguments.pictures, arguments.frame, size, arguments.sheet)
    if arguments.loop:
        draw_loop(arguments.models, arguments.clip, arguments, arguments.loop)


if __name__ == "__main__":
    main()
