"""What `cgconvert doctor` says that a worker lacks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from cgconvert.doctor import worker
from cgconvert.doctor.worker import CREDENTIALS, try_worker


def found() -> dict[str, tuple[bool, str]]:
    return {name: (works, told) for name, works, told in try_worker()}


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        worker.importlib.util, "find_spec", lambda name: None if name == "ray" else there(name)
    )
    assert found()["Ray"] == (False, "needs ray: pip install 'cgconvert[ray]'")


def test_credentials_are_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in CREDENTIALS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    assert found()["credentials for s3://"] == (
        False,
        "none of AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, "
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is set; a role may do instead",
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "word-of-somebody")
    assert found()["credentials for s3://"] == (True, "AWS_ACCESS_KEY_ID is set")
    assert "word-of-somebody" not in str(found())


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CGCONVERT_HOME", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(worker.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 30))
    assert found()["models folder"] == (True, f"3.0 GiB free in {tmp_path}/not/there")
    monkeypatch.setattr(worker.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 << 20))
    assert found()["models folder"] == (False, f"5.0 MiB free in {tmp_path}/not/there")

    def refused(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(worker.tempfile, "TemporaryFile", refused)
    assert found()["models folder"] == (
        False,
        f"{tmp_path}/not/there cannot be written (Permission denied)",
    )
    assert not (tmp_path / "not").exists()
