"""A page's server for tests: as an application, and as a real process that a browser can reach."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra [ui] is not installed")
pytest.importorskip("httpx", reason="httpx, which Starlette's test client needs, is not installed")

from starlette.testclient import TestClient

from cgconvert.ui.access import Access
from cgconvert.ui.places import Places
from cgconvert.ui.queue import Queue
from cgconvert.ui.server import create_app
from tests.video.clips import Clip, make_clip
from tests.video.conftest import exact, small_model  # noqa: F401 - fixtures

PORT = 8765
OWN = f"http://127.0.0.1:{PORT}"
ACTS = {"x-cgconvert": "1", "origin": OWN}
"""What the page sends with what changes something."""


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """The folder that the page may see, with a clip and what leads out of it."""
    folder = tmp_path / "media"
    folder.mkdir()
    make_clip(folder / "in.mp4", Clip(frames=20, width=96, height=64))
    (tmp_path / "secret").mkdir()
    make_clip(tmp_path / "secret" / "secret.mp4", Clip(frames=2))
    (folder / "link.mp4").symlink_to(tmp_path / "secret" / "secret.mp4")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "notes.txt").write_text("not shown")
    (folder / ".hidden.mp4").write_bytes(b"")
    return folder


@pytest.fixture
def queue(own_home: Path) -> Queue:
    return Queue()


@pytest.fixture
def access() -> Access:
    return Access("127.0.0.1", PORT)


@pytest.fixture
def page(media: Path, queue: Queue, access: Access, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client with a session. Jobs stay in the queue: no runner is started."""
    monkeypatch.setattr("cgconvert.ui.server.start_runner", lambda queue: None)
    app = create_app(Places([media]), access, queue, limit=100_000)
    with TestClient(app, base_url=OWN, follow_redirects=False) as client:
        assert client.get(f"/?token={access.token}").status_code == 303
        yield client


@dataclass
class Server:
    """`cgconvert ui` in a process of its own, on a port that was free."""

    media: Path
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = None
    address: str = ""
    runners: list[int] = field(default_factory=list)

    def start(self) -> str:
        """Start it and return the address with its token."""
        command = [sys.executable, "-m", "cgconvert", "ui", str(self.media), "--port", "0", "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        self.address = found[0]
        return self.address

    @property
    def root(self) -> str:
        return self.address.partition("?")[0].rstrip("/")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def server(media: Path, own_home: Path) -> Iterator[Server]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    one = Server(media, environment)
    try:
        yield one
    finally:
        one.kill()
        from cgconvert.ui.queue import Queue

        queue = Queue()
        for job in queue.jobs():  # a runner that is left ends with its job
            if not job.is_over:
                queue.cancel(job.id)
