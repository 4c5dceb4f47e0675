"""What a machine lacks that is to be one of many: packages, folders that can be written, credentials."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from cgconvert.engines.cache import engines_folder
from cgconvert.host.folders import data_folder
from cgconvert.progress import size_in_words

PACKAGES = (
    ("object storage", "obstore", "cloud"),
    ("Ray", "ray", "ray"),
    ("large pictures", "pyvips", "large"),
)
"""What they are for, the modules that must be there, and the extras that install them."""

CREDENTIALS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
}
"""Variables of which one is enough to reach a service; a machine may have a role instead."""

LEAST_FREE = 2 << 30
"""Bytes below which a disk is too full for engines and for copies of videos."""


def try_worker() -> Iterator[tuple[str, bool, str]]:
    """Yield what is looked for, whether it is there, and what is known of it or what to do."""
    for name, module, extra in PACKAGES:
        there = importlib.util.find_spec(module) is not None
        told = f"{module} {version(module)}" if there else f"needs {module}: pip install 'cgconvert[{extra}]'"
        yield name, there, told
    for scheme, names in CREDENTIALS.items():
        found = next((name for name in names if os.environ.get(name)), None)
        told = f"{found} is set" if found else f"none of {', '.join(names)} is set; a role may do instead"
        yield f"credentials for {scheme}://", found is not None, told
    places = (
        ("models", data_folder()),
        ("engines", engines_folder()),
        ("temporary", Path(tempfile.gettempdir())),
    )
    for name, folder in places:
        yield f"{name} folder", *_try_folder(folder)


def _try_folder(folder: Path) -> tuple[bool, str]:
    """Whether a folder, or the one in which it would be made, can be written and has room."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        return False, f"{folder} cannot be written ({error.strerror})"
    return free >= LEAST_FREE, f"{size_in_words(free)} free in {folder}"
