"""cgconvert converts videos and folders of pictures to another look with CycleGAN-family generators.

    import cgconvert
    report = cgconvert.convert_video("in.mp4", model="photo2monet")
    result = cgconvert.convert_dir("imgs", model="photo2monet")
    picture = cgconvert.load_model("photo2monet").convert(rgb)   # uint8 (H, W, 3)

The command line runs the same functions. Names are loaded when they are first used, so that importing
this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cgconvert.host.privacy import refuse_telemetry

if TYPE_CHECKING:
    from cgconvert.arrays import Model, load_model
    from cgconvert.errors import CgconvertError
    from cgconvert.options import EngineOptions, ImageOptions, VideoOptions
    from cgconvert.pictures.pipeline import convert_dir, convert_images
    from cgconvert.video.pipeline import convert_video
    from cgconvert.video.report import VideoReport
    from cgconvert.video.series import convert_videos

_HOMES = {
    "CgconvertError": "cgconvert.errors",
    "EngineOptions": "cgconvert.options",
    "ImageOptions": "cgconvert.options",
    "Model": "cgconvert.arrays",
    "VideoOptions": "cgconvert.options",
    "VideoReport": "cgconvert.video.report",
    "convert_dir": "cgconvert.pictures.pipeline",
    "convert_images": "cgconvert.pictures.pipeline",
    "convert_video": "cgconvert.video.pipeline",
    "convert_videos": "cgconvert.video.series",
    "load_model": "cgconvert.arrays",
}

__all__ = [
    "CgconvertError",
    "EngineOptions",
    "ImageOptions",
    "Model",
    "VideoOptions",
    "VideoReport",
    "convert_dir",
    "convert_images",
    "convert_video",
    "convert_videos",
    "load_model",
]


refuse_telemetry()  # here, since whatever the way in, nothing of this package is imported before


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from cgconvert.host.threads import wait_without_spinning

        wait_without_spinning()  # has an effect if this is what brings torch in
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("cgconvert")
    raise AttributeError(f"module 'cgconvert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
