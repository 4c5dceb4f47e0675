"""Who is let in, and what is refused. The attacks go to a real server too."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cgconvert.cli import cgconvert, run
from cgconvert.ui.access import Access
from cgconvert.ui.places import Places
from cgconvert.ui.queue import Queue
from cgconvert.ui.server import create_app
from tests.ui.conftest import ACTS, OWN, PORT, Server


def test_the_token_opens_the_page_once(media: Path, queue: Queue, access: Access) -> None:
    app = create_app(Places([media]), access, queue)
    address = f"/?token={access.token}"
    with TestClient(app, base_url=OWN, follow_redirects=False) as first:
        assert first.get("/").status_code == 401
        assert first.get("/?token=wrong").status_code == 401
        answer = first.get(address)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"cgconvert_{PORT}=")
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert first.get("/").status_code == 200
        first.cookies.clear()  # another browser
        assert first.get(address).status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/api/files", "/api/looks", "/api/jobs", "/api/media?path=/", "/api/frame", "/api/events", "/none"],
)
def test_nothing_is_told_without_a_session(media: Path, queue: Queue, access: Access, path: str) -> None:
    with TestClient(create_app(Places([media]), access, queue), base_url=OWN) as client:
        answer = client.get(path)
        assert answer.status_code == 401
        assert str(media) not in answer.text


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"host": "evil.example:8765"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "127.0.0.1:80"}, 421),
        ({"host": "127.0.0.1.evil.example:8765"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:8765"}, 403),  # the page is at 127.0.0.1: another site
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({}, 200),
        ({"origin": OWN, "sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_foreign_hosts_and_origins_are_refused(page: TestClient, headers: dict[str, str], code: int) -> None:
    assert page.get("/api/files", headers=headers).status_code == code


def test_what_changes_something_needs_the_header_of_the_page(page: TestClient, media: Path) -> None:
    body = {"path": str(media / "in.mp4"), "model": "photo2monet"}
    assert page.post("/api/jobs", json=body).status_code == 403
    assert (
        page.post("/api/jobs", json=body, headers={"x-cgconvert": "1", "origin": "null"}).status_code == 403
    )
    assert page.get("/api/jobs").json() == []
    assert page.post("/api/jobs", json=body, headers=ACTS).status_code == 201


def test_every_answer_forbids_what_the_page_does_not_need(page: TestClient) -> None:
    for path in ("/", "/api/files", "/static/app.js", "/none"):
        headers = page.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_the_page_loads_nothing_from_elsewhere() -> None:
    folder = Path(__file__).parents[2] / "cgconvert" / "ui" / "static"
    for path in folder.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, which is not loaded
        found = re.search(r"https?:|//[a-z]+\.|@import|innerHTML|outerHTML|insertAdjacent|eval\(", text)
        assert not found, path


@pytest.mark.parametrize(
    "path",
    ["../secret/secret.mp4", "/etc/passwd", "{media}/../secret/secret.mp4", "{media}/link.mp4", "{media}/out",
     "{media}/out/secret.mp4", "", "relative.mp4", "{media}/in.mp4\0.png"],
)  # fmt: skip
def test_nothing_leads_out(page: TestClient, media: Path, path: str) -> None:
    path = path.replace("{media}", str(media))
    for call in ("media", "frame", "clip"):
        answer = page.get(f"/api/{call}", params={"path": path, "model": "photo2monet"})
        assert answer.status_code == 403, call
        assert "secret" not in answer.text
    asked = {"path": path, "model": "photo2monet"}
    for call in ("plan", "estimate", "jobs"):
        assert page.post(f"/api/{call}", json=asked, headers=ACTS).status_code == 403
    assert page.get("/api/jobs").json() == []


@pytest.mark.parametrize("name", ["../out.mp4", "out/new.mp4", ".hidden.mp4", "a\nb.mp4", "link.mp4"])
def test_results_stay_inside(page: TestClient, media: Path, name: str) -> None:
    asked = {"path": str(media / "in.mp4"), "model": "photo2monet", "output": name}
    answer = page.post("/api/jobs", json=asked, headers=ACTS)
    assert answer.status_code in (400, 403)
    assert page.get("/api/jobs").json() == []


def test_models_are_named_and_not_paths(page: TestClient, media: Path, tmp_path: Path) -> None:
    for model in (str(tmp_path / "x.safetensors"), "../x", ""):
        asked = {"path": str(media / "in.mp4"), "model": model}
        assert page.post("/api/plan", json=asked, headers=ACTS).status_code == 400


def test_huge_requests_are_refused(page: TestClient) -> None:
    assert page.post("/api/plan", content=b"x" * (2 << 20), headers=ACTS).status_code == 413
    pieces = (b"x" * 65536 for _ in range(40))  # without a length that says so
    assert page.post("/api/plan", content=pieces, headers=ACTS).status_code == 400


def test_the_password_lets_in_and_a_wrong_one_makes_wait(media: Path, queue: Queue) -> None:
    access = Access("192.168.1.5", PORT, "correct horse")
    own = f"http://192.168.1.5:{PORT}"
    with TestClient(
        create_app(Places([media]), access, queue), base_url=own, follow_redirects=False
    ) as client:
        assert 'type="password"' in client.get("/").text
        form = {"origin": own, "content-type": "application/x-www-form-urlencoded"}
        assert client.post("/login", content="password=wrong", headers=form).status_code == 401
        # at once after a wrong one, the right one is not even looked at
        assert client.post("/login", content="password=correct+horse", headers=form).status_code == 401
        access._wrong = float("-inf")
        no_origin = {"content-type": form["content-type"]}
        assert client.post("/login", content="password=correct+horse", headers=no_origin).status_code == 403
        assert client.post("/login", content="password=correct+horse", headers=form).status_code == 303
        assert client.get("/api/files").status_code == 200


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("192.168.1.5:8765", True),
        ("[fe80::1]:8765", True),
        ("evil.example:8765", False),
        ("1.2.3.4:1", False),
    ],
)
def test_on_all_addresses_only_addresses_and_the_own_name_are_hosts(host: str, known: bool) -> None:
    assert Access("0.0.0.0", PORT, "correct horse").knows_host(host) is known


def test_another_host_needs_a_password(
    media: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CGCONVERT_UI_PASSWORD", "short")
    with pytest.raises(SystemExit) as left:
        run(cgconvert, "cgconvert", ["ui", str(media), "--host", "0.0.0.0", "--port", "0"])
    assert left.value.code == 2
    assert "the password needs 8 characters or more" in capsys.readouterr().err


def test_a_real_server_refuses_the_same(server: Server, media: Path) -> None:
    """What a client library would put right: raw headers, and paths that are not made simple."""
    server.start()
    host = server.root.removeprefix("http://")
    token = server.address.partition("token=")[2]

    def get(path: str, **headers: str) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.putrequest("GET", path, skip_host=True)
        for name, value in ({"Host": host} | headers).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.getheader("set-cookie") or "", answer.read().decode("utf-8", "replace")

    assert get("/", Host="evil.example")[0] == 421
    assert get(f"/?token={token}", Host="evil.example")[0] == 421  # and the token is not used up
    status, cookie, _ = get(f"/?token={token}")
    assert status == 303
    session = cookie.partition(";")[0]
    assert get(f"/?token={token}")[0] == 401
    assert get("/api/files")[0] == 401
    assert get("/api/files", Cookie=session, Origin="http://evil.example")[0] == 403
    for path in ("/static/../access.py", "/static/%2e%2e/access.py", "/static/..%2faccess.py"):
        assert get(path, Cookie=session)[0] == 404
    status, _, body = get(f"/api/files?path={media}", Cookie=session)
    assert [entry["name"] for entry in json.loads(body)["entries"]] == ["in.mp4"]
