"""Files of several pictures: animations, and TIFFs of several pages. One frame at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from cgconvert.errors import InputError
from cgconvert.host.objects import AnyPath
from cgconvert.media.picture import codec
from cgconvert.media.picture.animated_avif import (
    common_scale,
    read_times,
    unpack_avif,
    write_animated_avif,
)
from cgconvert.media.picture.animated_png import read_animated_png, time_of, write_animated_png
from cgconvert.media.picture.animated_webp import MOST_TICKS as MOST_WEBP_TICKS
from cgconvert.media.picture.animated_webp import TICK as WEBP_TICK
from cgconvert.media.picture.animated_webp import read_animated_webp, write_animated_webp
from cgconvert.media.picture.canvas import Patch, changed_part, draw_all
from cgconvert.media.picture.codec import Picture, decode_picture, encode_picture, fitted
from cgconvert.media.picture.formats import ANIMATED
from cgconvert.media.picture.gif import MOST_TICKS as MOST_GIF_TICKS
from cgconvert.media.picture.gif import TICK as GIF_TICK
from cgconvert.media.picture.gif import GifInfo, draw_gif, write_gif
from cgconvert.media.picture.headers import ImageHeader
from cgconvert.media.picture.metadata import Metadata, for_result, png_metadata, read_metadata
from cgconvert.media.picture.pages import PageWriter, read_pages


@dataclass(frozen=True)
class PictureSequence:
    """The frames of an animation or the pages of a TIFF, which `pictures` yields upright, one after another.

    `seconds` has the time of each frame, and is empty for pages. `plays` is how often an animation is shown,
    0 for ever. `metadata` are those of the whole file, and pages have their own. `may_be_transparent` says
    whether a frame can have alpha. `dropped` says in words what of the file is missing.
    """

    format: str
    count: int
    pictures: Callable[[], Iterator[Picture]]
    seconds: Sequence[Fraction] = ()
    plays: int = 1
    metadata: Metadata = field(default_factory=Metadata)
    may_be_transparent: bool = False
    lossless: bool = True
    dropped: tuple[str, ...] = ()


def check_holds(header: ImageHeader, kind: str) -> None:
    """Raise `InputError` if a file has several frames or pages and the format `kind` holds no such thing."""
    if header.frames < 2 or (header.format == "tiff" and kind == "tiff"):
        return
    what = f"{header.frames} {header.parts} in one file"
    if header.format == "tiff":
        raise InputError(f'{what}, which only TIFF holds: leave `format` out, or use `format="tiff"`')
    if kind not in ANIMATED:
        raise InputError(f"{what}, which {kind.upper()} does not hold: use `format` {', '.join(ANIMATED)}")


def open_sequence(data: bytes, header: ImageHeader) -> PictureSequence:
    """Return the frames or pages of a file, of which none is decoded yet. Raises `InputError`.

    `header` is what `checked_header` returned for the file's bytes.
    """
    if header.format == "tiff":
        return PictureSequence(
            "tiff",
            header.frames,
            lambda: (decode_picture(page, own) for page, own in read_pages(data, header)),
            lossless=header.lossless,
        )
    metadata = read_metadata(data, header)
    turned = metadata.orientation
    depth, dropped = 8, []

    def upright(canvases: Iterable[np.ndarray]) -> Iterator[Picture]:
        """Yield each canvas, RGB or RGBA, as a picture of its own. Fully opaque ones have no alpha."""
        for number, canvas in enumerate(canvases):
            if number >= header.frames:
                raise InputError(f"damaged: it says {header.frames} frames and has more")
            shown = codec.turned_upright(canvas, turned)
            alpha = np.ascontiguousarray(shown[:, :, 3]) if shown.shape[2] == 4 else None
            if alpha is not None and (alpha == np.iinfo(alpha.dtype).max).all():
                alpha = None
            pixels = np.array(shown[:, :, :3], order="C")
            yield Picture(pixels, alpha, Metadata(), header.format, header.lossless, 16 if depth == 16 else 8)

    width, height = header.width, header.height
    if header.gif is not None:
        gif = header.gif
        seconds = [frame.ticks * GIF_TICK for frame in gif.frames]
        plays, alpha = gif.plays, gif.may_be_transparent

        def pictures() -> Iterator[Picture]:
            return upright(draw_gif(gif))
    elif header.format == "webp":
        webp = read_animated_webp(data)
        seconds = [frame.ticks * WEBP_TICK for frame in webp.frames]
        plays, alpha = webp.plays, webp.may_be_transparent

        def pictures() -> Iterator[Picture]:
            frames = ((frame.patch, _alone(frame.patch, frame.alone())) for frame in webp.frames)
            return upright(draw_all(frames, width, height))
    elif header.format == "png":
        png = read_animated_png(data)
        seconds = [frame.seconds for frame in png.frames]
        plays, alpha, depth = png.plays, png.may_be_transparent, data[24]
        if png.hidden:
            dropped.append("the picture for programs that do not show animations")

        def pictures() -> Iterator[Picture]:
            frames = ((frame.patch, _alone(frame.patch, frame.alone())) for frame in png.frames)
            return upright(draw_all(frames, width, height, np.uint16 if depth == 16 else np.uint8))
    else:
        assert header.avif is not None
        times = read_times(data)
        seconds, plays, alpha = list(times.seconds), times.plays, header.avif.alpha
        metadata = replace(metadata, exif=codec.avif_exif(data))
        if header.avif.depth > 8:
            dropped.append(f"{header.avif.depth} bits a sample, of which an animated AVIF is read with 8")

        def pictures() -> Iterator[Picture]:
            return upright(unpack_avif(data))

    if len(seconds) != header.frames:
        raise InputError(f"damaged: it says {header.frames} frames and has {len(seconds)}")
    size = (height, width) if turned in (5, 6, 7, 8) else (width, height)
    metadata = for_result(metadata, *size)
    lost = (*dropped, *metadata.left_out)
    return PictureSequence(
        header.format, header.frames, pictures, seconds, plays, metadata, alpha, header.lossless, lost
    )


def read_first(path: AnyPath) -> Picture:
    """Read the picture of a file, or the first of its frames or pages. Raises `InputError`."""
    data = codec.read_file(path)
    header = codec.checked_header(data, single=False)
    if header.frames == 1:
        return decode_picture(data, header)
    return next(open_sequence(data, header).pictures())


def _alone(patch: Patch, data: bytes) -> np.ndarray:
    """Decode a frame that is a file of its own to RGBA (H, W, 4). Raises `InputError`."""
    header = codec.checked_header(data)
    if (header.width, header.height) != (patch.width, patch.height):
        raise InputError("damaged: a frame has another size than its header says")
    return decode_picture(data, header).rgba()


def write_sequence(
    file: BinaryIO, sequence: PictureSequence, results: Iterable[Picture], kind: str, quality: int | None
) -> tuple[str, ...]:
    """Write pictures, one for each of `sequence`, as `kind`, with the times and metadata of the sequence.

    `results` is consumed one picture after another, and `quality` is that of `encode_picture`. Returns in
    words what the file does not hold. Raises `InputError` for what `kind` cannot hold, and `OSError`.
    """
    lost: dict[str, None] = dict.fromkeys(sequence.dropped)
    if sequence.format == "tiff":
        writer = PageWriter(file, sequence.count)
        for picture in results:
            page, dropped = fitted(picture, kind, quality)
            encoded, _ = encode_picture(replace(page, metadata=Metadata()), kind)
            writer.add(encoded, page.metadata, page.alpha is not None)
            lost.update(dict.fromkeys((*picture.dropped, *dropped)))
        return tuple(lost)

    pictures = iter(results)
    first = next(pictures)
    # What the format cannot hold of the metadata is told once, for the first frame.
    pictures = chain([replace(first, metadata=sequence.metadata)], pictures)

    def samples() -> Iterator[Picture]:
        for picture in pictures:
            page, dropped = fitted(picture, kind, quality)
            lost.update(dict.fromkeys(dropped))
            yield replace(page, metadata=Metadata())

    metadata, plays, seconds = sequence.metadata, sequence.plays, sequence.seconds
    size = first.pixels.shape[1], first.pixels.shape[0]
    if kind == "gif":
        ticks = _whole_ticks(seconds, GIF_TICK, MOST_GIF_TICKS, kind, lost)
        frames = ((picture.rgba(), tick) for picture, tick in zip(samples(), ticks, strict=True))
        alpha = sequence.may_be_transparent
        write_gif(file, frames, GifInfo(plays, alpha, metadata.xmp, metadata.icc, metadata.comments))
    elif kind == "webp":
        ticks = _whole_ticks(seconds, WEBP_TICK, MOST_WEBP_TICKS, kind, lost)
        packed = _changes(samples(), kind, quality, ticks, sequence.may_be_transparent)
        others = ((b"EXIF", metadata.exif), (b"XMP ", metadata.xmp))
        write_animated_webp(file, size, plays, packed, metadata.icc, others)
    elif kind == "png":
        if any(Fraction(*time_of(time)) != time for time in seconds):
            lost["times of frames that PNG holds only nearly"] = None
        packed_png = _changes(samples(), kind, quality, seconds, sequence.may_be_transparent)
        write_animated_png(file, size, sequence.count, plays, packed_png, png_metadata(metadata))
    else:
        scale = common_scale(seconds)
        ticks = _whole_ticks(seconds, Fraction(1, scale), (1 << 32) - 1, kind, lost)
        alpha = sequence.may_be_transparent
        default = 100 if alpha else codec.AVIF_QUALITY
        blocks = {"exif": metadata.exif, "xmp": metadata.xmp, "icc_profile": metadata.icc}
        write_animated_avif(
            file,
            (_eight_bits(picture, alpha, lost) for picture in samples()),
            ticks,
            scale,
            plays,
            quality or default,
            codec.AVIF_SPEED,
            **{name: block for name, block in blocks.items() if block},
        )
    return tuple(lost)


def _eight_bits(picture: Picture, alpha: bool, lost: dict[str, None]) -> np.ndarray:
    if picture.pixels.dtype != np.uint8:
        lost["16 bits a sample, of which an animated AVIF is written with 8"] = None
    return codec.to_8_bit(picture.rgba() if alpha else picture.pixels)


def _whole_ticks(
    seconds: Sequence[Fraction], tick: Fraction, most: int, kind: str, lost: dict[str, None]
) -> list[int]:
    """Return times in ticks. Where they are no whole numbers, each frame begins at the tick next to its time.

    So no error adds up. A frame that would then have no time at all although it had some gets one tick.
    """
    ticks = []
    reached, passed = 0, Fraction(0)
    for time in seconds:
        passed += time
        ticks.append(max(round(passed / tick) - reached, 1 if time else 0))
        reached += ticks[-1]
    if any(time % tick for time in seconds):
        lost[f"times of frames finer than 1/{1 / tick} s, which {kind.upper()} does not hold"] = None
    if max(ticks, default=0) > most:
        longest = round(most * tick)
        lost[f"times of frames longer than {longest} s, which {kind.upper()} does not hold"] = None
    return [min(count, most) for count in ticks]


def _changes(
    pictures: Iterable[Picture], kind: str, quality: int | None, times: Sequence[Any], alpha: bool
) -> Iterator[tuple[Patch, Any, bytes]]:
    """Yield place, time and packed pixels of the rectangle that changes with each picture."""
    shown: np.ndarray | None = None
    for picture, time in zip(pictures, times, strict=True):
        samples = picture.rgba() if alpha else picture.pixels
        if shown is None:
            rows, columns = slice(0, samples.shape[0]), slice(0, samples.shape[1])
        else:
            rows, columns = changed_part(shown, samples, even=kind == "webp")
        part = samples[rows, columns]
        packed, _ = encode_picture(
            replace(
                picture,
                pixels=np.ascontiguousarray(part[:, :, :3]),
                alpha=np.ascontiguousarray(part[:, :, 3]) if alpha else None,
            ),
            kind,
            quality,
        )
        yield Patch(columns.start, rows.start, part.shape[1], part.shape[0], blend=False), time, packed
        shown = samples
