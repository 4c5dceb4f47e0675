"""Objects in S3, Google Cloud Storage, Azure and on web servers, by obstore (extra `cloud`).

obstore is one package of 6 MB without dependencies, and it has what is needed here: puts that create and
never replace, multipart uploads that appear whole or not at all, listing by pages, and retries. For the
same four services fsspec needs more than forty packages (s3fs, gcsfs, adlfs, aiohttp and theirs).

Credentials come from the environment as obstore reads it (`AWS_ACCESS_KEY_ID`, `AZURE_STORAGE_ACCOUNT_NAME`,
`GOOGLE_APPLICATION_CREDENTIALS` and others) or from the machine's role. They are never printed or kept.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from array import array
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from cgconvert.errors import InputError, OutputError, UnavailableError, UsageError, first_line

SCHEMES = ("s3", "gs", "az", "https", "http")
ATTEMPTS = 4
"""How often a read is begun, apart from the retries of single requests."""
RETRIES, RETRY_SECONDS = 8, 120
PART_BYTES = 8 << 20
"""Bytes of each part of an upload and of each request of a download."""
PAGE = 1000
"""Names of a listing that are in memory at once."""

Result = TypeVar("Result")


@dataclass(frozen=True, order=True)
class ObjectPath:
    """An object, or a prefix of names as a folder of them: `s3://bucket/key`.

    It has those methods of `Path` that conversions use. `bucket` is the URL before the key.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"

    def __truediv__(self, below: ObjectPath | Path | str) -> ObjectPath:
        return ObjectPath(self.bucket, str(PurePosixPath(self.key, str(below))).lstrip("/"))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """The name's suffix, with its dot."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> ObjectPath:
        """The prefix that the object is in."""
        parent = str(PurePosixPath(self.key).parent)
        return ObjectPath(self.bucket, "" if parent == "." else parent)

    def with_name(self, name: str) -> ObjectPath:
        """Another object in the same prefix."""
        return self.parent / name

    def read(self) -> bytes:
        """All of an object. Raises `InputError`."""
        import obstore

        return self._reading(lambda: bytes(obstore.get(store_of(self.bucket), self.key).bytes()))

    def download(self, target: Path) -> None:
        """Write an object to a file, in order and in parts. Raises `InputError`, `OSError`."""
        import obstore

        def download() -> None:
            stream = obstore.get(store_of(self.bucket), self.key).stream(min_chunk_size=PART_BYTES)
            with target.open("wb") as file:
                for part in stream:
                    file.write(part)

        self._reading(download)

    def version(self) -> dict[str, Any]:
        """Size in bytes, time and tag of an object: what changes when it does. Raises `InputError`."""
        import obstore

        facts = self._reading(lambda: obstore.head(store_of(self.bucket), self.key))
        return {"size": facts["size"], "changed": str(facts["last_modified"]), "tag": facts["e_tag"]}

    def _reading(self, work: Callable[[], Result]) -> Result:
        """Do it again if the connection breaks in the middle. Raises `InputError`."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        for attempt in range(ATTEMPTS):
            try:
                return work()
            except FileNotFoundError:
                raise InputError("no such object") from None
            except (PermissionDeniedError, UnauthenticatedError):
                raise InputError("no permission to read this object: check the credentials") from None
            except BaseError as error:
                if attempt + 1 == ATTEMPTS:
                    raise InputError(f"cannot be read ({first_line(error)})") from None
        raise AssertionError("unreachable")

    def write(self, data: bytes | Path, overwrite: bool) -> None:
        """Make the object of bytes or of a file: whole or not at all, in several parts if it is large.

        Without `overwrite` nothing is replaced, whoever was first. Raises `OutputError`.
        """
        import obstore
        from obstore.exceptions import (
            AlreadyExistsError,
            BaseError,
            PermissionDeniedError,
            UnauthenticatedError,
        )

        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        parts = isinstance(data, Path) and size > PART_BYTES
        try:
            if parts and not overwrite and self.exists():  # an upload in parts has no conditions
                raise OutputError(f"{self} exists already: use `overwrite` to replace it")
            obstore.put(
                store_of(self.bucket),
                self.key,
                data,
                mode=None if parts or overwrite else "create",
                use_multipart=parts,
                chunk_size=PART_BYTES,
            )
        except AlreadyExistsError:
            raise OutputError(f"{self} has appeared meanwhile: use `overwrite` to replace it") from None
        except (PermissionDeniedError, UnauthenticatedError):
            cause = PermissionError(13, "permission denied")
            raise OutputError(f"no permission to write {self}: check the credentials") from cause
        except (BaseError, FileNotFoundError) as error:  # the latter where there is no such bucket
            raise OutputError(f"cannot write {self}: {first_line(error)}") from OSError(5, "upload failed")

    def exists(self) -> bool:
        """Whether there is such an object. Raises `OutputError` if that cannot be known."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.head(store_of(self.bucket), self.key)
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise OutputError(f"cannot look for {self}: {first_line(error)}") from OSError(5, "no answer")
        return True

    def find(self, suffixes: Container[str] | None = None) -> Iterator[Path]:
        """Yield the names below this prefix, relative to it, by pages.

        Those with a part that begins with a dot are left out, and with `suffixes` those with others. Raises
        `InputError`.
        """
        import obstore
        from obstore.exceptions import BaseError

        prefix = f"{self.key.rstrip('/')}/" if self.key else ""
        try:
            for page in obstore.list(store_of(self.bucket), prefix or None, chunk_size=PAGE):
                for entry in page:
                    name = PurePosixPath(entry["path"][len(prefix) :])
                    if any(part.startswith(".") for part in name.parts):
                        continue
                    if suffixes is None or name.suffix.lower() in suffixes:
                        yield Path(name)
        except FileNotFoundError:
            raise InputError(f"{self}: there is no such bucket") from None
        except BaseError as error:
            raise InputError(f"{self}: cannot be listed ({first_line(error)})") from None


AnyPath = Path | ObjectPath


class Names:
    """The names of all objects below a prefix, of which eight bytes each are kept."""

    def __init__(self, folder: ObjectPath) -> None:
        """List them. Raises `InputError`."""
        import numpy as np

        found = array("q", (hash(folder / name) for name in folder.find()))
        self.hashes = np.sort(np.frombuffer(found, np.int64) if found else np.empty(0, np.int64))

    def __contains__(self, path: ObjectPath) -> bool:
        wanted = hash(path)
        place = self.hashes.searchsorted(wanted)
        return bool(place < len(self.hashes) and self.hashes[place] == wanted)


@functools.lru_cache(maxsize=32)
def store_of(bucket: str) -> Any:
    """The connection to a bucket. Raises `UnavailableError` without obstore, `UsageError`."""
    if importlib.util.find_spec("obstore") is None:
        raise UnavailableError(
            f"{bucket}: object storage needs obstore, which is not installed: pip install 'cgconvert[cloud]'"
        )
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    retries: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    try:
        return from_url(bucket, retry_config=retries)
    except (BaseError, ValueError) as error:
        raise UsageError(f"{bucket} cannot be used: {first_line(error)}") from None


def parse_place(text: str) -> AnyPath:
    """Return a path, or the object of a URL such as s3://bucket/key. Raises `UsageError`."""
    scheme, separator, _ = text.partition("://")
    if not separator or "/" in scheme:
        return Path(text)
    url = urlsplit(text)
    if scheme == "file":
        return Path(unquote(url.path))
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}:// cannot be read: use a path, or {'://, '.join(SCHEMES)}://")
    if not url.netloc:
        raise UsageError(f"{text} names no bucket")
    if "@" in url.netloc or url.query:
        raise UsageError("a URL must hold no credentials: put them into the environment")
    bucket = f"{scheme}://{url.netloc}"
    store_of(bucket)  # raises at once where it cannot be used
    return ObjectPath(bucket, unquote(url.path).strip("/"))


def as_place(path: str | AnyPath) -> AnyPath:
    """Return what is a path already, and text as `parse_place` does."""
    return parse_place(path) if isinstance(path, str) else path


def exists(path: AnyPath) -> bool:
    """Whether something is there, a broken link included. Nothing is at a name too long for the disk."""
    return path.exists() if isinstance(path, ObjectPath) else os.path.lexists(path)
