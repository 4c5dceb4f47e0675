"""Models from a hub: a server on this machine that answers, lies, stalls and cuts off."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.cli import cgconvert, run
from cgconvert.errors import ModelError, OutputError, UnavailableError, UsageError
from cgconvert.models import hub
from cgconvert.models.catalog import installed_path, models_folder
from cgconvert.models.files import read_card
from cgconvert.progress import Silent
from tests.models import reference_networks as reference

COMMIT, LATER = "a" * 40, "b" * 40
REPOSITORY = "someone/night"


@dataclass
class Hub:
    """A server: what it has, how it misbehaves, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = COMMIT
    digests: dict[str, str] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    stalls: int = 0
    ranges: bool = True
    redirect: str = ""
    answer: bytes | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def about(self) -> bytes:
        siblings = [
            {"rfilename": name, "size": len(data), "lfs": {"sha256": self.digests.get(name, digest(data))}}
            for name, data in self.files.items()
        ]
        return json.dumps({"sha": self.commit, "siblings": siblings, "cardData": {"license": "mit"}}).encode()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    path = tmp_path / "latest_net_G.pth"
    torch.save(reference.randomised(reference.resnet(ngf=8, blocks=1)).state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def server(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub(files={"latest_net_G.pth": weights})
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range")))
            if state.errors:
                self.send_error(state.errors.pop(0))
                return
            if self.path.startswith("/api/"):
                self.reply(state.about() if state.answer is None else state.answer)
                return
            if state.redirect:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            data = state.files.get(self.path.rpartition("/")[2])
            if data is None:
                self.send_error(404)
                return
            if state.stalls:
                state.stalls -= 1
                released.wait(10)
                return
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges else 0
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{digest(data)[:8]}"')
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            end = start + state.cut_after.pop(0) if state.cut_after else len(data)
            self.wfile.write(data[start:end])

        def reply(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    for name in ("HF_HUB_OFFLINE", "CGCONVERT_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "PAUSE", 0.0)
    monkeypatch.setattr(hub, "TIMEOUT", 5.0)
    yield state
    released.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def add(source: str = f"hf:{REPOSITORY}", **options: Any) -> str:
    return hub.add_model(source, options.pop("name", None), Silent(), **options).name


def lock() -> dict[str, Any]:
    return json.loads((models_folder() / hub.LOCK_NAME).read_text())["models"]


def left_over() -> list[Path]:
    return [path for path in (models_folder() / "downloads").rglob("*") if path.is_file()]


def test_a_checkpoint_is_installed_and_recorded(server: Hub, weights: bytes) -> None:
    assert add() == "night"
    card = read_card(installed_path("night"))
    assert (card.architecture, card.licence) == ("resnet", "mit")
    assert card.training["from"] == f"hf:{REPOSITORY} at {COMMIT}"
    assert lock() == {
        "night": {
            "source": f"hf:{REPOSITORY}",
            "url": f"{server.url}/{REPOSITORY}/resolve/{COMMIT}/latest_net_G.pth",
            "commit": COMMIT,
            "sha256": digest(weights),
            "licence": "mit",
            "bytes": len(weights),
        }
    }
    assert left_over() == []
    assert server.asked[0][0] == f"/api/models/{REPOSITORY}/revision/main?blobs=true"


def test_our_own_model_keeps_its_card(server: Hub) -> None:
    add(name="first", title="Night")
    server.files = {"night.safetensors": installed_path("first").read_bytes(), "README.md": b"x"}
    assert add(name="second") == "second"
    card = read_card(installed_path("second"))
    assert (card.title, card.licence) == ("Night", "mit")
    assert sorted(lock()) == ["first", "second"]


def test_a_file_and_a_revision_may_be_named(server: Hub, weights: bytes) -> None:
    server.files["other_net_G.pth"] = weights
    with pytest.raises(ModelError, match="it has 2 files that may be models: add one of 'latest_net_G"):
        add()
    assert add(f"hf:{REPOSITORY}@v1:other_net_G.pth", name="x") == "x"
    assert server.asked[-2][0].startswith(f"/api/models/{REPOSITORY}/revision/v1?")
    with pytest.raises(ModelError, match="there is no such file; those that may be models: 'latest_net_G"):
        add(f"hf:{REPOSITORY}:absent.pth")


def test_a_web_address_needs_its_checksum(server: Hub, weights: bytes) -> None:
    url = f"{server.url}/files/latest_net_G.pth"
    assert add(f"{url}#sha256={digest(weights)}") == "latest_net_G"
    assert lock()["latest_net_G"]["commit"] == ""
    with pytest.raises(UsageError, match="add #sha256= and the 64 digits"):
        add(url)
    with pytest.raises(ModelError, match=r"another file than promised .*; nothing of it is kept"):
        add(f"{url}#sha256={'0' * 64}", name="y")
    assert not installed_path("y").exists()
    assert left_over() == []


@pytest.mark.parametrize(
    "source", ["hf:night", "night", "ftp://x/y", "hf:a/..", "hf:a/b:../c", "hf:a/b@x@y", ""]
)
def test_what_is_no_source(source: str) -> None:
    with pytest.raises(UsageError, match="is no source"):
        add(source)


def test_http_elsewhere_is_not_used(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="only https is used"):
        add(f"http://example.org/net.pth#sha256={'0' * 64}")
    server.redirect = "http://example.org/net.pth"
    with pytest.raises(ModelError, match=r"leads to http://example\.org/net\.pth, which is not https"):
        add()
    monkeypatch.setenv("HF_ENDPOINT", "http://example.org")
    with pytest.raises(UsageError, match="only https is used"):
        add()


def test_a_lie_about_the_content_is_found(server: Hub) -> None:
    server.digests["latest_net_G.pth"] = "0" * 64
    with pytest.raises(ModelError, match="another file than promised"):
        add()
    assert not installed_path("night").exists()
    assert not (models_folder() / hub.LOCK_NAME).exists()
    assert left_over() == []


def test_what_is_cut_off_is_continued(server: Hub, weights: bytes) -> None:
    server.cut_after = [1000, 2000]
    add()
    assert [asked for path, asked in server.asked if "/resolve/" in path] == [
        None,
        "bytes=1000-",
        "bytes=3000-",
    ]
    assert lock()["night"]["sha256"] == digest(weights)


def test_the_next_command_goes_on_where_one_stopped(server: Hub) -> None:
    server.cut_after = [1000, 1, 1, 1]
    with pytest.raises(ModelError, match=r"broke off after 1003 of \d+ bytes; the same command goes on"):
        add()
    assert [path.suffix for path in sorted(left_over())] == [".etag", ".part"]
    add()
    assert server.asked[-1][1] == "bytes=1003-"
    assert left_over() == []


def test_a_beginning_of_another_file_is_thrown_away(server: Hub, weights: bytes) -> None:
    server.cut_after = [1000, 1, 1, 1]
    with pytest.raises(ModelError):
        add()
    (part,) = (path for path in left_over() if path.suffix == ".part")
    part.write_bytes(b"x" * 1003)
    add()
    assert lock()["night"]["sha256"] == digest(weights)


def test_a_server_without_ranges_begins_anew(server: Hub, weights: bytes) -> None:
    server.cut_after, server.ranges = [1000], False
    add()
    assert lock()["night"]["sha256"] == digest(weights)


def test_errors_of_the_server_pass_and_others_do_not(server: Hub) -> None:
    server.errors = [503, 500]
    add()
    server.errors = [404]
    with pytest.raises(ModelError, match=r"no such repository, revision or file \(404\)"):
        add(name="x")
    server.errors = [401]
    with pytest.raises(ModelError, match=r"wants a password for it \(401\)"):
        add(name="x")


def test_a_stalled_connection_is_given_up(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TIMEOUT", 0.3)
    server.stalls = 1
    add()
    server.stalls = 10
    with pytest.raises(ModelError, match="not downloaded: the connection broke off"):
        add(name="x")


ANSWERS = {
    "no JSON": b"<html>",
    "a list": b"[]",
    "no commit": b'{"siblings": []}',
    "a wrong commit": b'{"sha": "main", "siblings": []}',
    "no files": b'{"sha": "' + COMMIT.encode() + b'", "siblings": [3, {"rfilename": 4}]}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_strange_answers_end_in_one_line(server: Hub, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(ModelError) as caught:
        add()
    assert "\n" not in str(caught.value)
    assert f"hf:{REPOSITORY}" in str(caught.value)


def test_what_is_no_model_is_told(server: Hub) -> None:
    server.files = {"net.pth": b"hello, this is not it\n" * 40}
    with pytest.raises(ModelError, match="is a text file"):
        add()
    assert left_over() == []
    assert not (models_folder() / hub.LOCK_NAME).exists()


def test_frozen_takes_only_what_is_pinned(server: Hub, weights: bytes) -> None:
    with pytest.raises(UsageError, match="is not pinned in"):
        add(frozen=True)
    assert server.asked == []
    add()
    server.commit = LATER  # the branch has moved on
    server.asked.clear()
    with pytest.raises(ModelError, match=f"gives commit {LATER} for {COMMIT}"):
        add(frozen=True, overwrite=True)
    server.commit = COMMIT
    assert add(frozen=True, overwrite=True) == "night"
    assert server.asked[-1][0] == f"/{REPOSITORY}/resolve/{COMMIT}/latest_net_G.pth"
    server.files["latest_net_G.pth"] = weights + b"more"
    with pytest.raises(ModelError, match="another file than promised"):
        add(frozen=True, overwrite=True)
    assert lock()["night"]["sha256"] == digest(weights)


def test_a_lock_file_of_ones_own(server: Hub, tmp_path: Path) -> None:
    mine = tmp_path / "project" / "looks.json"
    add(lock_file=mine)
    assert json.loads(mine.read_text())["models"]["night"]["commit"] == COMMIT
    for text in ("{", "[]", '{"format": 1, "models": {"a": {"source": 3, "url": "x"}}}'):
        mine.write_text(text)
        with pytest.raises(ModelError, match="no lock file, or a damaged one"):
            add(lock_file=mine, overwrite=True)
    mine.write_text('{"format": 2}')
    with pytest.raises(ModelError, match="of another version"):
        add(lock_file=mine, overwrite=True)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "CGCONVERT_OFFLINE"])
def test_offline_asks_nobody(server: Hub, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UnavailableError, match=f"{variable} says that there is no network"):
        add()
    assert server.asked == []


def test_a_proxy_is_honoured(server: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is asked as a proxy: with the whole address of another port, where nobody listens."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    address = "http://localhost:9/files/latest_net_G.pth"
    add(f"{address}#sha256={digest(weights)}")
    assert server.asked == [(address, None)]


def test_a_taken_name_is_kept(server: Hub) -> None:
    add()
    before = installed_path("night").read_bytes()
    server.asked.clear()
    with pytest.raises(OutputError, match="`overwrite`"):
        add()
    assert server.asked == []
    assert installed_path("night").read_bytes() == before


def test_the_command(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(cgconvert, "cgconvert", ["models", "add", f"hf:{REPOSITORY}", "--domains", "day,night"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"Installed as night: {installed_path('night')} (licence: mit)\n"
    with pytest.raises(SystemExit) as left:
        run(cgconvert, "cgconvert", ["models", "add", "hf:night"])
    assert left.value.code == 2
