"""Errors that a user can act on, each with the exit code that the command line returns.

A message says what happened, with which file, and what to do. It names parameters as Python does, in
backticks (`work_size`, `device="cpu"`); the command line words them as its options. Anything that is not
a `CgconvertError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class CgconvertError(Exception):
    """Base of every error that is the input's, the user's or the machine's, not ours."""

    exit_code = 1


class InputError(CgconvertError):
    """An input cannot be read or is damaged; other inputs of the same run are not affected."""

    exit_code = 1


class UsageError(CgconvertError):
    """The request makes no sense, or there is nothing to do."""

    exit_code = 2


class UnavailableError(UsageError):
    """What was asked for by name (an engine, a device, a codec) does not work on this machine."""


class ModelError(CgconvertError):
    """A model is unknown, broken, or not what it was taken for."""

    exit_code = 3


class OutputError(CgconvertError):
    """An output cannot be written: it exists, the disk is full, permission is missing."""

    exit_code = 4


class BusyError(OutputError):
    """Another process is at work on the same output."""


class Interrupted(CgconvertError):
    """The user stopped the run; nothing half-written is left at a final name."""

    exit_code = 130


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of an error's text, cut to `most` characters, or its type's name without a text.

    Errors of the system and of FFmpeg give only their reason, since our own messages name the file.
    """
    text = str(getattr(error, "strerror", None) or error).strip()
    return printable((text.splitlines() or [type(error).__name__])[0][:most])


def printable(text: object) -> str:
    """Return a path or text in which line ends, control characters and undecodable bytes are escaped.

    Names in a file are anyone's, and a terminal obeys control characters.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
