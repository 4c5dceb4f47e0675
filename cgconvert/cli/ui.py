"""`cgconvert ui`."""

from __future__ import annotations

import os
import socket
import webbrowser
from pathlib import Path

import click

from cgconvert.cli.wording import tell
from cgconvert.errors import UnavailableError, UsageError, printable

PORT = 8765
PASSWORD = "CGCONVERT_UI_PASSWORD"
LEAST_PASSWORD = 8


@click.command(short_help="Open a page to see and convert videos and pictures.")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"The port to listen on; 0: any free one. By default {PORT}, or any free one if that is taken.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help=f"The address to listen on. Another one needs a password, in {PASSWORD} or typed in.",
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in the browser.")
def ui(folders: tuple[Path, ...], port: int | None, host: str, browser: bool) -> None:
    """Open a page in the browser: choose a video or pictures, see each look, convert.

    The page sees the FOLDERs and what is below them, or your home folder if none is named. Jobs go on
    when the page is closed, and when cgconvert ui is ended.
    """
    try:
        import uvicorn

        from cgconvert.ui.access import Access
        from cgconvert.ui.queue import Queue
        from cgconvert.ui.server import create_app, roots_of
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"the page needs {error.name}, which is not installed: pip install 'cgconvert[ui]'"
        ) from None
    from cgconvert.cli import find_plugins

    password = _password() if host not in ("127.0.0.1", "localhost", "::1") else None
    places = roots_of(folders)
    with _listen(host, port) as listening:
        port = listening.getsockname()[1]
        access = Access(host, port, password)
        app = create_app(places, access, Queue(), learns="learn" in find_plugins())
        own = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        address = f"http://{f'[{own}]' if ':' in own else own}:{port}/"
        if password is None:
            address += f"?token={access.token}"
        else:
            access.token = None  # who sees this terminal need not be who knows the password
            tell("Note: the page is not encrypted: whoever can read this network can read what it shows")
        seen = ", ".join(printable(root) for root in places.roots)
        click.echo(f"The page is at {address}\nIt sees {seen}. Ctrl-C ends it; jobs go on.")
        if browser:
            webbrowser.open(address)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _password() -> str:
    """The password that another address needs. Raises `UsageError` for a short one."""
    password = os.environ.get(PASSWORD) or click.prompt("Password for the page", hide_input=True)
    if len(password) < LEAST_PASSWORD:
        raise UsageError(f"the password needs {LEAST_PASSWORD} characters or more")
    return password


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens. Without a port it is `PORT`, or any free one. Raises `UsageError`."""
    if port is None:
        try:
            return _listen(host, PORT)
        except UsageError:  # most likely another page is open
            port = 0
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another --port"
        ) from error
    return listening
