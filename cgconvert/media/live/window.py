"""A window that shows results: Python's own tkinter, which every desktop has."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import cv2
import numpy as np

from cgconvert.errors import UnavailableError, first_line

INSTALL = "install it (Debian, Ubuntu: apt install python3-tk), or name another sink with `output`"


class Window:
    """A window. It is used by the main thread alone, as macOS wants it."""

    def __init__(self, title: str, width: int, height: int) -> None:
        """Open it for pictures of this size. Raises `UnavailableError` where there is no desktop."""
        try:
            import tkinter
        except ImportError as error:
            raise UnavailableError(f"a window needs tkinter, which this Python lacks: {INSTALL}") from error
        try:
            self.root: Any = tkinter.Tk(className="cgconvert")
        except tkinter.TclError as error:
            raise UnavailableError(
                f"no window can be opened here ({first_line(error)}): name another sink with `output`"
            ) from error
        self.tk = tkinter
        self.closed = False
        self.size = width, height
        self.root.title(title)
        self.root.geometry(f"{width}x{height}")
        self.root.protocol("WM_DELETE_WINDOW", self._close)
        self.root.bind("<Escape>", lambda event: self._close())
        self.root.bind("q", lambda event: self._close())
        self.label = tkinter.Label(self.root, borderwidth=0, background="black")
        self.label.pack(fill="both", expand=True)
        self.photo: Any = None
        self.root.update()

    def show(self, pixels: np.ndarray, title: str) -> None:
        """Show a picture (H, W, 3), fitted into the window."""
        if self.closed:
            return
        height, width = pixels.shape[:2]
        room = max(self.label.winfo_width(), 2), max(self.label.winfo_height(), 2)
        scale = min(room[0] / width, room[1] / height)
        wanted = max(1, round(width * scale)), max(1, round(height * scale))
        if wanted != (width, height):
            pixels = cv2.resize(pixels, wanted, interpolation=cv2.INTER_LINEAR)
        if pixels.dtype == np.uint16:
            pixels = (pixels >> 8).astype(np.uint8)
        data = b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + np.ascontiguousarray(pixels).tobytes()
        self.photo = self.tk.PhotoImage(master=self.root, data=data, format="PPM")
        self.label.configure(image=self.photo)
        self.root.title(title)
        self.tend()

    def tend(self) -> None:
        """Let the window react to the user."""
        if self.closed:
            return
        try:
            self.root.update()
        except self.tk.TclError:
            self.closed = True

    def close(self) -> None:
        """Close it."""
        if self.root is not None:
            with suppress(self.tk.TclError):
                self.root.destroy()
            self.root = None
        self.closed = True

    def _close(self) -> None:
        self.closed = True
