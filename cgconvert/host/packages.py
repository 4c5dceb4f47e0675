"""Which packages are installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version(name: str) -> str:
    """The version of an installed package; "absent" without it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
