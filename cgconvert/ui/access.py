"""Who may talk to the page's server: this browser, with this session, on this address.

Any page that is open in a browser can send requests to 127.0.0.1, and a name of the attacker's can be made
to point there. So Host and Origin are compared with what the server is called, a session is needed that only
the one-time token or the password gives, and what changes something needs a header that no foreign page may
send without being asked.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
import threading
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost", "[::1]")
MOST_BODY = 1 << 20
"""Bytes of a request that is no upload."""
UPLOAD = "/api/upload"
WAIT_AFTER_WRONG = 1.0
"""Seconds after a wrong password in which no other is looked at."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cgconvert</title><link rel="stylesheet" href="/static/style.css">
<main class="entry"><h1>cgconvert</h1>{body}</main></html>"""
ASK_TOKEN = "<p>This page opens with the address that <code>cgconvert ui</code> prints. That address works \
once; start <code>cgconvert ui</code> again for a new one.</p>"
ASK_PASSWORD = """{why}<form method="post" action="/login"><label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" autofocus required>
<button class="primary">Open</button></form>"""


class Access:
    """The secrets of one server: a token that opens it once, an optional password, and the sessions."""

    def __init__(self, host: str, port: int, password: str | None = None) -> None:
        self.host, self.port = host, port
        self.token: str | None = secrets.token_urlsafe(32)
        self.cookie = f"cgconvert_{port}"  # cookies do not tell ports apart
        self._password = _digest(password) if password else None
        self._sessions: set[bytes] = set()
        self._lock = threading.Lock()
        self._wrong = float("-inf")

    @property
    def has_password(self) -> bool:
        """Whether a password opens it."""
        return self._password is not None

    def knows_host(self, value: str) -> bool:
        """Whether this is what the server is called, with its port."""
        name, separator, port = value.rpartition(":")
        if not separator or port != str(self.port):
            return False
        if name in LOCAL or name == self.host:
            return True
        if self.host not in ("0.0.0.0", "::"):
            return False
        own = socket.gethostname().lower()
        if name.lower() in (own, f"{own}.local"):
            return True
        try:  # an address cannot be made to point elsewhere, as a name can
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def by_token(self, given: str) -> str | None:
        """Exchange the token for a session. It works once."""
        with self._lock:
            if self.token is None or not hmac.compare_digest(given.encode(), self.token.encode()):
                return None
            self.token = None
        return self._new_session()

    def by_password(self, given: str) -> str | None:
        """Exchange the password for a session. After a wrong one nothing is looked at for a second."""
        with self._lock:
            if self._password is None or time.monotonic() - self._wrong < WAIT_AFTER_WRONG:
                return None
            if not hmac.compare_digest(_digest(given), self._password):
                self._wrong = time.monotonic()
                return None
        return self._new_session()

    def _new_session(self) -> str:
        session = secrets.token_urlsafe(32)
        self._sessions.add(_digest(session))
        return session

    def has_session(self, cookies: str) -> bool:
        """Whether a Cookie header holds a session of this server."""
        try:
            found = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        return found is not None and _digest(found.value) in self._sessions


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """Lets through what `Access` allows, and answers the rest itself."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [
                    (name.encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name.encode() not in named
                ]
            await send(message)

        answer = await self._answer(scope, receive)
        if answer is not None:
            await answer(scope, receive, send_guarded)
            return
        if scope["path"] != UPLOAD:
            receive = _bounded(receive)
        await self.app(scope, receive, send_guarded)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """What is answered in the place of the page; None: the request may pass."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if len(headers.getlist("host")) != 1 or not self.access.knows_host(host):
            return _refused("this server is not called so", 421)
        if origin is not None and origin != f"http://{host}":
            return _refused("another page has sent this", 403)
        navigates = headers.get("sec-fetch-mode") == "navigate" and method == "GET" and path == "/"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
            return _refused("another page has sent this", 403)
        length = headers.get("content-length", "0")
        if path != UPLOAD and not (length.isdigit() and int(length) <= MOST_BODY):
            return _refused("that is too large", 413)
        if path.startswith("/static/") and method in ("GET", "HEAD"):
            return None
        if path == "/login" and method == "POST":
            return await self._login(origin, receive)
        is_known = self.access.has_session(headers.get("cookie", ""))
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if path == "/" and token:
            session = None if is_known else self.access.by_token(token)
            if is_known or session is not None:
                return self._entered(session)
        if not is_known:
            if path == "/":
                body = ASK_PASSWORD.format(why="") if self.access.has_password else ASK_TOKEN
                return HTMLResponse(PAGE.format(body=body), 401)
            return _refused("this needs a session: open the address that cgconvert ui has printed", 401)
        if method not in ("GET", "HEAD") and headers.get("x-cgconvert") != "1":
            return _refused("another page has sent this", 403)
        return None

    async def _login(self, origin: str | None, receive: Receive) -> Response:
        if origin is None:  # a browser sends it with every form
            return _refused("another page has sent this", 403)
        body = b""
        while len(body) <= MOST_BODY:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        given = parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0]
        session = self.access.by_password(given)
        if session is None:
            why = "<p role='alert'>That is not the password. Wait a second, then try again.</p>"
            return HTMLResponse(PAGE.format(body=ASK_PASSWORD.format(why=why)), 401)
        return self._entered(session)

    def _entered(self, session: str | None) -> Response:
        """To the page, without the token in the address."""
        answer = RedirectResponse("/", 303)
        if session is not None:
            answer.set_cookie(self.access.cookie, session, httponly=True, samesite="strict", path="/")
        return answer


def _refused(why: str, code: int) -> Response:
    return JSONResponse({"error": why}, code)


def _bounded(receive: Receive) -> Receive:
    """The body of a request, cut off where it is too large although it did not say so."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BODY:
            return {"type": "http.disconnect"}
        return message

    return bounded
