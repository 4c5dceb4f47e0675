"""Examines a pickle before it is read and refuses what would take forever or exhaust the memory.

`torch.load(weights_only=True)` runs nothing that is in a file, but it builds whatever the file describes. A
file of some kilobytes can describe nested tuples of 2 ** 60 parts, which nobody can hash, or of a depth at
which the interpreter's own stack ends. Here the opcodes are counted and the sizes of tuples added up; no
object is made.
"""

from __future__ import annotations

import pickletools
import warnings
from typing import IO, cast

MOST_OPCODES = 2_000_000
"""A checkpoint with optimizers has some hundred for each tensor."""

MOST_PARTS = 10_000
"""Parts of a tuple, with those of tuples in it each time that they occur. Shapes have four, arguments ten."""

MOST_NESTED = 32
"""Tuples within tuples."""

LEAF = (1, 0)
"""Parts and depth of whatever is no tuple."""

MARK = (0, -1)

PUSHING = frozenset(
    [
        *("NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "GLOBAL"),
        *("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"),
    ]
)
POPPED = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "REDUCE": 1, "NEWOBJ": 1}
"""Opcodes that take objects off the stack and leave what is below them as it is, or one in its place."""


READ = 2**16
"""Bytes that are asked of a file at once."""


class Bounded:
    """A file as `pickletools` reads it. It allocates what is there, and not what an opcode says there is."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.readline = file.readline
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; fewer only at the end of the file."""
        parts = []
        while count > 0 and (part := self.file.read(min(count, READ))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class UnreasonableError(Exception):
    """The pickle describes more than any checkpoint holds."""


def check_pickle(file: IO[bytes]) -> None:
    """Read one pickle's opcodes from an open file. Raises `UnreasonableError`.

    Returns at the first opcode that PyTorch's safe reader does not know and where the pickle is damaged:
    that reader then says what is wrong.
    """
    stack: list[tuple[int, int]] = []
    memo: dict[int, tuple[int, int]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in text that is none
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], Bounded(file)))):
                if count > MOST_OPCODES:
                    raise UnreasonableError(f"it holds more than {MOST_OPCODES} objects")
                if not _take(opcode.name, argument, stack, memo):
                    return
        except (ValueError, IndexError, KeyError, OverflowError):
            return


def _take(
    name: str, argument: object, stack: list[tuple[int, int]], memo: dict[int, tuple[int, int]]
) -> bool:
    """What one opcode does to the stack of sizes; False for one that ends or that nobody knows."""
    if name in PUSHING:
        stack.append(LEAF)
    elif name in ("BINGET", "LONG_BINGET"):
        assert isinstance(argument, int)
        stack.append(memo[argument])
    elif name in ("BINPUT", "LONG_BINPUT"):
        assert isinstance(argument, int)
        memo[argument] = stack[-1]
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        stack.append(_tuple([stack.pop() for _ in range(int(name[-1]))]))
    elif name == "TUPLE":
        stack.append(_tuple(_to_mark(stack)))
    elif name == "MARK":
        stack.append(MARK)
    elif name in ("APPENDS", "SETITEMS"):
        _to_mark(stack)
    elif name in POPPED:
        del stack[-POPPED[name] :]
        if name in ("REDUCE", "NEWOBJ"):
            stack[-1] = LEAF
    elif name == "BINPERSID":
        stack[-1] = LEAF
    else:
        return name == "PROTO"
    return True


def _to_mark(stack: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What lies above the last mark, taken off with it."""
    items = []
    while (item := stack.pop()) != MARK:
        items.append(item)
    return items


def _tuple(items: list[tuple[int, int]]) -> tuple[int, int]:
    """Parts and depth of a tuple of such items."""
    parts = 1 + sum(count for count, _ in items)
    depth = 1 + max((nested for _, nested in items), default=0)
    if parts > MOST_PARTS or depth > MOST_NESTED:
        raise UnreasonableError("it holds tuples within tuples without end")
    return parts, depth
