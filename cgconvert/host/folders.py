"""The folders that belong to the user rather than to a job."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Where models and the list of unfinished jobs are (not created): `CGCONVERT_HOME` or the platform's.

    Raises `RuntimeError` where `CGCONVERT_HOME` begins with "~" and there is no such home folder.
    """
    home = os.environ.get("CGCONVERT_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_data_path

    return user_data_path("cgconvert", appauthor=False)
