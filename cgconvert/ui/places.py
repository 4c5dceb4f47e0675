"""The folders that the page may see, and nothing else of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgconvert.errors import UsageError, printable
from cgconvert.host.files import real_path
from cgconvert.preview.shots import is_picture, is_video

MOST_ENTRIES = 2000
"""Files and folders that are listed of one folder."""


class OutsideError(UsageError):
    """A path is none of those that were named at the start."""


class Places:
    """The folders below which everything must be. Links are followed first, so none leads out."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = [real_path(root) for root in roots]
        for root in self.roots:
            if not root.is_dir():
                raise UsageError(f"{printable(root)} is no folder: name folders that the page may see")

    def find(self, text: str) -> Path:
        """Return a path that is there, without links. Raises `OutsideError`, `UsageError`."""
        path = self.allowed(text)
        if not path.exists():
            raise UsageError(f"no such file: {printable(text)}")
        return path

    def allowed(self, text: str) -> Path:
        """Return an absolute path without links, which may not be there yet. Raises `OutsideError`."""
        if not text or "\0" in text or not Path(text).is_absolute():
            raise OutsideError("that is no path of this machine")
        path = real_path(Path(text))
        if not any(path.is_relative_to(root) for root in self.roots):
            raise OutsideError("that is outside of the folders that this page may see")
        return path

    def listed(self, text: str) -> dict[str, Any]:
        """Return a folder's subfolders, videos and pictures, as plain data; "": the roots, or the only one.

        Hidden files are left out, and so are links that lead out, names that are no text, and the folders
        in which unfinished videos are kept.
        """
        if not text and len(self.roots) > 1:
            roots = [{"name": str(root), "path": str(root), "kind": "folder"} for root in self.roots]
            return {"path": "", "parent": None, "entries": roots, "more": 0}
        folder = self.find(text or str(self.roots[0]))
        if not folder.is_dir():
            raise UsageError(f"{printable(folder)} is no folder")
        entries = []
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    described = self._describe(entry)
                    if described is not None:
                        entries.append(described)
        except OSError as error:
            raise UsageError(f"{printable(folder)} cannot be read: {error.strerror}") from error
        entries.sort(key=lambda one: (one["kind"] != "folder", one["name"].casefold()))
        parent = str(folder.parent) if folder not in self.roots else "" if len(self.roots) > 1 else None
        return {
            "path": str(folder),
            "parent": parent,
            "entries": entries[:MOST_ENTRIES],
            "more": max(0, len(entries) - MOST_ENTRIES),
        }

    def _describe(self, entry: os.DirEntry[str]) -> dict[str, Any] | None:
        try:
            entry.name.encode()  # a name that is no text could not be sent back
            path = self.allowed(entry.path)
            if entry.name.startswith("."):
                return None
            if path.is_dir():
                if path.suffix == ".part":
                    return None
                return {"name": entry.name, "path": str(path), "kind": "folder"}
            kind = "video" if is_video(path) else "picture" if is_picture(path) else None
            if kind is None or not path.is_file():
                return None
            return {"name": entry.name, "path": str(path), "kind": kind, "bytes": path.stat().st_size}
        except (OSError, UnicodeEncodeError, OutsideError):
            return None
