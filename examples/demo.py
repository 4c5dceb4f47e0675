"""`make demo`: draw a short video, convert it with a model, and put source and result side by side.

`python examples/demo.py FOLDER [MODEL]` writes FOLDER/landscape.mp4, its conversion and a PNG.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import av
import cv2
import numpy as np
from landscape import write_video

import cgconvert
from cgconvert.cli.status import create_progress
from cgconvert.cli.video import summary

FRAME_SHOWN = 60


def read_frame(path: Path, index: int) -> np.ndarray:
    """Frame number `index` of a video as uint8 RGB."""
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == index:
                return frame.to_ndarray(format="rgb24")
    raise IndexError(f"{path} has no frame {index}")


def main(folder: Path, model: str) -> None:
    """Make the three files and say where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    source, result = folder / "landscape.mp4", folder / f"landscape.{model}.mp4"
    picture = folder / f"landscape.{model}.png"
    print("drawing a video of 4 s, 640x360, with sound")
    write_video(source)
    options = cgconvert.VideoOptions(overwrite=True)
    report = cgconvert.convert_video(source, result, model, options, progress=create_progress(quiet=False))
    print(summary(report))
    pair = np.concatenate([read_frame(path, FRAME_SHOWN) for path in (source, result)], axis=1)
    cv2.imwrite(str(picture), pair[:, :, ::-1])
    for what, path in (("source", source), ("result", result), ("side by side", picture)):
        print(f"{what:13}{path}")
    # Beside this Python, as pip puts it there; on the user's PATH only in an activated environment.
    command = Path(sys.executable).with_name("cgconvert")
    print(f"your own     {os.path.relpath(command)} video YOUR.mp4")
    print(f"or, to type cgconvert alone: source {os.path.relpath(command.with_name('activate'))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "photo2monet")
