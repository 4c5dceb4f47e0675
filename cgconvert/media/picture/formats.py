"""The picture formats that are read and written, and the suffixes of their files. No OpenCV."""

from __future__ import annotations

FORMATS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "gif": (".gif",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "bmp": (".bmp", ".dib"),
}
"""Every format that is read and written, with its suffixes. The first is the usual one."""

SUFFIXES = {suffix: name for name, suffixes in FORMATS.items() for suffix in suffixes}
LOSSY = ("jpeg", "webp", "avif")
ANIMATED = ("gif", "webp", "png", "avif")
"""The formats that hold animations. Of the others TIFF holds pages, and the rest one picture."""
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".mxf"),
)
"""Suffixes of videos, for the hint that `cgconvert video` converts them."""

FOREIGN_SUFFIXES = (".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".pdf", ".exr", ".ppm", ".pgm")
"""Suffixes of pictures that are neither read nor written."""
