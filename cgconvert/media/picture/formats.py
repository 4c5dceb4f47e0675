"""The picture formats that are read and written, and the suffixes of their files. No OpenCV."""

from __future__ import annotations

FORMATS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "bmp": (".bmp", ".dib"),
}
"""Every format that is read and written, with the suffixes it is known by; the first is the usual one."""

SUFFIXES = {suffix: name for name, suffixes in FORMATS.items() for suffix in suffixes}
LOSSY = ("jpeg", "webp", "avif")
FOREIGN_SUFFIXES = (".gif", ".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".pdf", ".exr", ".ppm", ".pgm")
"""Suffixes of pictures that are neither read nor written."""
