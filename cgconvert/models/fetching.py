"""Models in buckets and on web servers: a copy of each version is kept, so that it is fetched once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cgconvert.errors import InputError, ModelError
from cgconvert.host.files import atomic_output, output_error
from cgconvert.host.folders import data_folder
from cgconvert.host.objects import ObjectPath, parse_place
from cgconvert.models.files import SUFFIX


def is_url(text: str) -> bool:
    """Whether this is a URL rather than a path or a name."""
    return "://" in text


def kept_place(key: str, name: str) -> Path:
    """Where the copy of a model from elsewhere is kept, by the SHA-256 of what tells it from others."""
    return data_folder() / "fetched" / key[:32] / name


def fetched(url: str) -> Path:
    """The model file of a URL such as s3://bucket/look.safetensors; that of file:// is where it is.

    A copy is kept in the folder `fetched` beside the user's models, by the URL and by the size, time and tag
    of the object, so that another version is fetched anew. Raises `ModelError`, `UsageError` for a URL that
    cannot be read, `OutputError` if the copy cannot be written.
    """
    place = parse_place(url)
    if not place.name.endswith(SUFFIX):
        raise ModelError(f"{url} is no model: the name of one ends with {SUFFIX}")
    if not isinstance(place, ObjectPath):
        return place
    try:
        version = place.version()
    except InputError as error:
        raise ModelError(f"{url}: {error}") from None
    key = hashlib.sha256(json.dumps([url, version], sort_keys=True).encode()).hexdigest()
    target = kept_place(key, place.name)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(target, overwrite=True) as temporary:
            place.download(temporary)
    except InputError as error:
        raise ModelError(f"{url}: {error}") from None
    except OSError as error:
        raise output_error(target, error) from error
    return target
