"""What users write for where live pictures come from and go to, as FFmpeg takes it on each system."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field

from cgconvert.errors import UnavailableError, UsageError

STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "tcp", "http", "https")
PROTOCOLS = "rtp,rtsp,rtsps,rtmp,rtmps,srt,udp,tcp,tls,http,https,httpproxy,crypto,data"
"""What a stream may lead to; never a file of this machine."""

WAIT = 10.0
"""Seconds without data after which a stream counts as broken off."""

RECORDINGS = (".mp4", ".mkv", ".mov", ".ts")
_DEVICE = re.compile(r"/dev/video\d+")


@dataclass(frozen=True)
class Place:
    """A place that live pictures come from or go to.

    `kind` is "camera", "screen", "stream", "file" or "window", `url`, `format` and `options` are FFmpeg's.
    `text` is what the user wrote.
    """

    kind: str
    text: str
    url: str = ""
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)


def source_place(text: str, listen: bool = False, system: str = sys.platform) -> Place:
    """`camera[:N]`, `screen[:N]`, a device, the address of a stream, or a file, as a source.

    With `listen` the stream is waited for: somebody else connects and sends. Raises `UsageError`.
    """
    name, _, which = text.partition(":")
    if _DEVICE.fullmatch(text):
        return Place("camera", text, text, "v4l2")
    if name == "camera":
        return _camera(text, which, system)
    if name == "screen":
        return _screen(text, which, system)
    scheme = _scheme(text)
    if scheme is None:
        if listen:
            raise UsageError(f"`listen` waits for a stream (rtsp, rtmp, srt, tcp), and {text} is none")
        return Place("file", text, text)
    options = {"protocol_whitelist": PROTOCOLS, "fflags": "nobuffer"}
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": "tcp", "rtsp_flags": "listen" if listen else "prefer_tcp"}
        # FFmpeg refuses its own default of the time that it listens.
        options |= {"listen_timeout": "86400"} if listen else {"timeout": str(round(WAIT * 1e6))}
    elif listen and scheme in ("rtmp", "tcp"):
        options["listen"] = "1"
    elif listen and scheme == "srt":
        options["mode"] = "listener"
    elif listen:
        raise UsageError(f"`listen` waits for a stream of rtsp, rtmp, srt or tcp, not of {scheme}")
    return Place("stream", text, text, {"rtsp": "rtsp", "rtsps": "rtsp"}.get(scheme), options)


def sink_place(text: str) -> Place:
    """`window`, a device of v4l2loopback, the address of a stream, or a file, as a sink.

    Raises `UsageError`.
    """
    if text == "window":
        return Place("window", text)
    if _DEVICE.fullmatch(text):
        return Place("camera", text, text, "v4l2")
    if text.startswith("whip:"):
        return Place("stream", text, text.removeprefix("whip:"), "whip")
    scheme = _scheme(text)
    if scheme is None:
        if not text.lower().endswith(RECORDINGS):
            raise UsageError(
                f"{text!r} is no sink: use window, /dev/videoN, rtsp://, rtmp://, srt://, udp://, tcp://, "
                f"whip:https://, or a file ending in {', '.join(RECORDINGS)}"
            )
        return Place("file", text, text)
    if scheme in ("http", "https"):
        raise UsageError(f"{text}: for WHIP write whip:{text}")
    if scheme in ("rtsp", "rtsps"):
        return Place("stream", text, text, "rtsp", {"rtsp_transport": "tcp"})
    return Place("stream", text, text, "flv" if scheme.startswith("rtmp") else "mpegts")


def _scheme(text: str) -> str | None:
    """The scheme of a stream's address; None for a path. Raises `UsageError` for other schemes."""
    scheme, mark, _ = text.partition("://")
    if not mark:
        return None
    if scheme.lower() not in STREAMS:
        raise UsageError(f"{text}: streams are {', '.join(STREAMS)}, not {scheme}")
    return scheme.lower()


def _camera(text: str, which: str, system: str) -> Place:
    if system == "darwin":
        return Place("camera", text, f"{which or '0'}:none", "avfoundation", {"framerate": "30"})
    if system == "win32":
        if not which or which.isdecimal():
            raise UsageError(f"{text}: name the camera as Windows does, as in camera:Integrated Camera")
        return Place("camera", text, f"video={which}", "dshow")
    if which and not which.isdecimal():
        raise UsageError(f"{text}: name the camera by its number, as in camera:0 for /dev/video0")
    return Place("camera", text, f"/dev/video{which or '0'}", "v4l2")


def _screen(text: str, which: str, system: str) -> Place:
    if which and not which.isdecimal():
        raise UsageError(f"{text}: name the screen by its number, as in screen:0")
    if system == "darwin":
        return Place("screen", text, f"Capture screen {which or '0'}:none", "avfoundation")
    if system == "win32":
        return Place("screen", text, "desktop", "gdigrab", {"framerate": "30"})
    display = f":{which}" if which else os.environ.get("DISPLAY", "")
    if not display:
        raise UnavailableError("no screen to read: DISPLAY is not set (X11; Wayland is not supported)")
    return Place("screen", text, display, "x11grab", {"framerate": "30"})
