"""Manifests: lists of inputs, each with where its result goes and options of its own, a row for each.

    {"path": "a/b.png", "output": "b-painted.png", "options": {"strength": 0.5}}

JSON Lines, or Parquet if pyarrow is installed. Rows are read one after the other, so a list may be long.
"""

from __future__ import annotations

import importlib.util
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from cgconvert.errors import InputError, UnavailableError, UsageError, printable
from cgconvert.host.objects import AnyPath, ObjectPath, parse_place
from cgconvert.options import ImageOptions, VideoOptions
from cgconvert.scale.shards import Shard

Options = TypeVar("Options", ImageOptions, VideoOptions)

OF_A_RUN = ("watch", "resume", "restart")
"""Options that no single row can have."""

BATCH_ROWS = 4096
"""Rows of a Parquet file that are read at once."""


@dataclass(frozen=True)
class Row:
    """One input: its path and the path of its result as the manifest has them, and its options.

    `number` counts from 1.
    """

    number: int
    path: str
    output: str | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """A file of rows. Relative paths are relative to its folder; results to `output`, if that is given."""

    file: Path
    output: AnyPath | None = None

    def __iter__(self) -> Iterator[Row]:
        """Yield every row. Raises `UsageError` for one that is wrong, `UnavailableError`, `InputError`."""
        read = _parquet_rows if self.file.suffix.lower() == ".parquet" else _json_rows
        for number, data in read(self.file):
            yield _row(self.file, number, data)

    def part(self, shard: Shard | None) -> Iterator[Row]:
        """Yield the rows of a shard, by their paths."""
        return (row for row in self if shard is None or shard.holds(row.path))

    def source(self, row: Row) -> AnyPath:
        """Return the path of a row's input. Raises `UsageError` for a URL that cannot be read."""
        path = self._place(row, row.path)
        return path if isinstance(path, ObjectPath) else self.file.parent / path

    def result(self, row: Row) -> AnyPath | None:
        """Return the path of a row's result. None: nothing is said of it, so it lies beside its source."""
        if row.output is not None:
            path = self._place(row, row.output)
            is_whole = isinstance(path, ObjectPath) or path.is_absolute()
            if is_whole:
                return path
            return (self.output or self.file.parent) / row.output
        if self.output is None:
            return None
        source = self._place(row, row.path)
        path = Path(source.key) if isinstance(source, ObjectPath) else source
        inside = not path.is_absolute() and ".." not in path.parts
        return self.output / (path if inside else path.name)

    def _place(self, row: Row, text: str) -> AnyPath:
        try:
            return parse_place(text)
        except UsageError as error:
            raise self.error(row, error) from None

    def options(self, row: Row, common: Options) -> Options:
        """Return the options of a row: the common ones with its own in their places. Raises `UsageError`."""
        if not row.options:
            return common
        hints = get_type_hints(type(common))
        known = [field.name for field in fields(common) if field.name not in OF_A_RUN]
        for name, value in row.options.items():
            if name not in known:
                raise self.error(row, f"no option {name!r}; there are: {', '.join(known)}")
            if not _fits(value, hints[name]):
                raise self.error(row, f"the value {value!r} of {name!r} is of the wrong type")
        return replace(common, **row.options)

    def error(self, row: Row, what: object) -> UsageError:
        """Return the error that says what is wrong with a row."""
        return UsageError(f"{printable(self.file)}, row {row.number}: {what}")


def _fits(value: object, hint: Any) -> bool:
    """Whether a value of JSON can be an option of this type; whole numbers are numbers too."""
    allowed = get_args(hint) or (hint,)
    if isinstance(value, bool):
        return bool in allowed
    if isinstance(value, int) and float in allowed:
        return True
    return any(isinstance(value, kind) for kind in allowed if isinstance(kind, type)) or (
        value is None and NoneType in allowed
    )


def _row(file: Path, number: int, data: object) -> Row:
    """Return what was read as a row. Raises `UsageError`."""
    problem = None
    if not isinstance(data, dict):
        problem = "is no object"
    elif not isinstance(data.get("path"), str) or not data["path"]:
        problem = 'has no "path"'
    elif not isinstance(data.get("output"), str | None) or data.get("output") == "":
        problem = '"output" is no path'
    elif not isinstance(data.get("options"), dict | None):
        problem = '"options" is no object'
    if problem is not None:
        raise UsageError(f"{printable(file)}, row {number}: {problem}")
    assert isinstance(data, dict)
    return Row(number, data["path"], data.get("output"), data.get("options") or {})


def _json_rows(file: Path) -> Iterator[tuple[int, object]]:
    """Yield number and value of every line that is not empty."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except ValueError:
                        raise UsageError(f"{printable(file)}, row {number}: is no JSON") from None
    except FileNotFoundError:
        raise UsageError(f"no such file: {printable(file)}") from None
    except OSError as error:
        raise InputError(f"{printable(file)}: cannot be read ({error.strerror})") from error


def _parquet_rows(file: Path) -> Iterator[tuple[int, object]]:
    """Yield number and columns of every row; `options` is a struct, or text in JSON."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UnavailableError(
            f"{printable(file)}: Parquet needs pyarrow, which is not installed: pip install pyarrow, or use "
            "JSON Lines"
        )
    import pyarrow
    import pyarrow.parquet

    if not file.is_file():
        raise UsageError(f"no such file: {printable(file)}")
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            wanted = [name for name in ("path", "output", "options") if name in table.schema_arrow.names]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted):
                for data in batch.to_pylist():
                    number += 1
                    options = data.get("options")
                    if isinstance(options, str):
                        options = json.loads(options)
                    if isinstance(options, dict):  # a struct has all fields in every row
                        options = {name: value for name, value in options.items() if value is not None}
                    yield number, {**data, "options": options}
    except (pyarrow.ArrowException, ValueError) as error:
        raise UsageError(f"{printable(file)}, row {number}: {str(error).splitlines()[0]}") from None


def check_distinct(manifest: Manifest, outputs: Iterable[tuple[Row, str]]) -> int:
    """Count the rows. Raises `UsageError` if two of them would write the same file.

    Eight bytes are kept for each row.
    """
    import numpy as np

    hashes = array("q", (hash(output) for _, output in outputs))
    values, counts = np.unique(np.frombuffer(hashes, np.int64) if hashes else np.empty(0), return_counts=True)
    twice = set(values[counts > 1].tolist())
    if twice:
        first: dict[str, Row] = {}
        for row, output in outputs:
            if hash(output) in twice and (other := first.setdefault(output, row)) is not row:
                raise manifest.error(row, f"row {other.number} has the same output, {printable(output)}")
    return len(hashes)
