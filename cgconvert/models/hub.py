"""Models from a hub or a web address: what is downloaded is checked, recorded, and then imported as any file.

This is the only code that uses a network, and only `cgconvert models add` calls it. Addresses are https, or
http on this machine. The environment variables of proxies are honoured (HTTPS_PROXY, NO_PROXY ...), and
those that say that there is no network (HF_HUB_OFFLINE=1, CGCONVERT_OFFLINE=1).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cgconvert.card import TEXT_LIMIT, ModelCard, check_name
from cgconvert.errors import ModelError, UnavailableError, UsageError, first_line, printable
from cgconvert.host.files import file_sha256, output_error, write_atomically
from cgconvert.host.locks import locked
from cgconvert.models.catalog import models_folder
from cgconvert.models.files import expanded
from cgconvert.progress import Progress

ENDPOINT = "https://huggingface.co"
FORMATS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
LOCK_NAME = "models.lock.json"
LOCK_FORMAT = 1
SIZE_LIMIT = 4 * 2**30
"""Bytes of a file, as in `checkpoints.py`."""

ANSWER_LIMIT = 8 * 2**20
"""Bytes of what a hub says about a repository."""

CHUNK = 2**18
ATTEMPTS = 4
TIMEOUT = 20.0
"""Seconds without a single byte after which a connection counts as dead."""

PAUSE = 0.5
"""Seconds before the second attempt; twice as many before each that follows."""

HF = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([^:@]+))?")
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Pin:
    """A file at one place in one version.

    `commit` is empty for a web address, `sha256` where it is not known yet; `bytes` is 0 then.
    """

    source: str
    url: str
    commit: str = ""
    sha256: str = ""
    licence: str = "unknown"
    bytes: int = 0


def add_model(
    source: str,
    name: str | None,
    progress: Progress,
    title: str | None = None,
    domains: tuple[str, str] | None = None,
    overwrite: bool = False,
    frozen: bool = False,
    lock_file: Path | None = None,
) -> ModelCard:
    """Download a model, install it under `name`, and record it in the lock file; returns its card.

    `source` is "hf:OWNER/REPOSITORY[@REVISION][:FILE]" or "https://...#sha256=...". The file is a model of
    ours or a checkpoint that `import_checkpoint` understands. `name` None: that of the repository or the
    file. With `frozen` only what the lock file has, or what names a commit or a checksum itself, is taken,
    and only with the bytes that are recorded. `lock_file` None: `models.lock.json` in the models folder.

    Raises `UsageError` for a source of no such form or not pinned, `UnavailableError` in offline mode,
    `ModelError` for what cannot be downloaded, is not what was promised, or is no model, and `OutputError`.
    """
    lock = expanded(lock_file) if lock_file is not None else models_folder() / LOCK_NAME
    repository, revision, file = _parsed(source)
    name = check_name(name or _name_of(repository or urllib.parse.urlsplit(source).path))
    known = read_lock(lock).get(name)
    if known is not None and known.source != source:
        known = None
    if frozen and known is None and not (COMMIT.fullmatch(revision) or "#sha256=" in source):
        raise UsageError(
            f"{source} is not pinned in {lock}: name a commit of 40 digits, or add it without `frozen` first"
        )
    _check_online()
    from cgconvert.models.importing import free_target, import_checkpoint

    free_target(name, overwrite)  # rather before a download than after it
    progress.stage(f"looking up {source}")
    if repository:
        wanted = known.commit if frozen and known is not None else revision
        pin = _resolved(source, repository, wanted, file)
    else:
        url, _, digest = source.partition("#sha256=")
        pin = Pin(source, url, sha256=digest)
    if frozen and known is not None:
        pin = Pin(source, pin.url, pin.commit, known.sha256, known.licence, known.bytes)
    folder = models_folder() / "downloads" / hashlib.sha256(pin.url.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock"), remove=True):
            path = folder / _file_name(pin.url)
            progress.stage(None)
            found = _download(pin, path, progress)
            progress.stage("reading it")
            origin = f"{source.split('#')[0]}{f' at {found.commit}' if found.commit else ''}"
            try:
                card = import_checkpoint(
                    path, name, title, domains, overwrite, origin=origin[:TEXT_LIMIT], licence=found.licence
                )
            finally:
                shutil.rmtree(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    _record(lock, name, found)
    return card


def read_lock(path: Path) -> dict[str, Pin]:
    """The pins of a lock file by model name; none if there is no file. Raises `ModelError`."""
    try:
        if not path.exists():
            return {}
        data = json.loads(path.read_bytes())
        if data["format"] != LOCK_FORMAT:
            raise ModelError(f"{path}: lock file of another version; upgrade cgconvert")
        pins: dict[str, Pin] = {name: Pin(**entry) for name, entry in data["models"].items()}
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: no lock file, or a damaged one") from error
    for pin in pins.values():
        if not all(isinstance(value, int if key == "bytes" else str) for key, value in asdict(pin).items()):
            raise ModelError(f"{path}: no lock file, or a damaged one")
    return pins


def _record(lock: Path, name: str, pin: Pin) -> None:
    """Put one pin into the lock file, with those of other processes kept."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock.with_name(f".{lock.name}.lock"), remove=True):
            pins = read_lock(lock) | {name: pin}
            models = {each: asdict(pins[each]) for each in sorted(pins)}
            text = json.dumps({"format": LOCK_FORMAT, "models": models}, indent=2, ensure_ascii=False)
            write_atomically(lock, f"{text}\n".encode())
    except OSError as error:
        raise output_error(lock, error) from error


def _parsed(source: str) -> tuple[str, str, str]:
    """Repository, revision and file of a source on the hub; three empty texts for a web address."""
    if match := HF.fullmatch(source):
        repository, revision, file = match[1], match[2] or "main", match[3] or ""
        parts = [*repository.split("/"), *revision.split("/"), *file.split("/")]
        if not any(part in (".", "..") for part in parts):
            return repository, revision, file
    address, _, digest = source.partition("#sha256=")
    if source.startswith(("https://", "http://")):
        if not _is_allowed(address):
            raise UsageError(
                f"{source}: only https is used, since anybody on the way can change what http brings"
            )
        if not SHA256.fullmatch(digest):
            raise UsageError(
                f"{source}: add #sha256= and the 64 digits of the file's checksum, in small letters: the "
                "address may bring another file tomorrow"
            )
        return "", "", ""
    raise UsageError(
        f"{source!r:.200} is no source: use hf:OWNER/REPOSITORY[@REVISION][:FILE] or https://...#sha256=..."
    )


def _is_allowed(address: str) -> bool:
    parts = urllib.parse.urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _name_of(text: str) -> str:
    """A model's name from that of a repository or a file."""
    name = PurePosixPath(urllib.parse.unquote(text)).name
    for suffix in FORMATS:
        name = name.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64]


def _file_name(url: str) -> str:
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-64:] or "model"


def _check_online() -> None:
    for variable in ("HF_HUB_OFFLINE", "CGCONVERT_OFFLINE"):
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            raise UnavailableError(f"{variable} says that there is no network: import a file that you have")


def _resolved(source: str, repository: str, revision: str, file: str) -> Pin:
    """The commit that a revision is now, and the one file in it that is meant."""
    endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
    if not _is_allowed(endpoint):
        raise UsageError(f"HF_ENDPOINT={endpoint}: only https is used")
    quoted = urllib.parse.quote(revision, safe="")
    answer = _json(f"{endpoint}/api/models/{repository}/revision/{quoted}?blobs=true", source)
    commit, siblings, about = answer.get("sha"), answer.get("siblings"), answer.get("cardData")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise ModelError(f"{source}: what {endpoint} says of it names no commit or no files")
    if COMMIT.fullmatch(revision) and commit != revision:
        raise ModelError(f"{source}: {endpoint} gives commit {commit} for {revision}")
    files = {
        entry["rfilename"]: entry
        for entry in siblings
        if isinstance(entry, dict) and isinstance(entry.get("rfilename"), str)
    }
    models = sorted(each for each in files if each.lower().endswith(FORMATS))
    if file and file not in files:
        shown = ", ".join(f"{printable(each)!r:.80}" for each in models[:8]) or "none"
        raise ModelError(f"{source}: there is no such file; those that may be models: {shown}")
    if not file and len(models) != 1:
        shown = ", ".join(f"{printable(each)!r:.80}" for each in models[:8])
        hint = f": add one of {shown} behind a colon" if models else ""
        raise ModelError(f"{source}: it has {len(models)} files that may be models{hint}")
    chosen = file or models[0]
    entry = files[chosen]
    stored = entry.get("lfs")
    digest = stored.get("sha256") if isinstance(stored, Mapping) else None
    licence = about.get("license") if isinstance(about, Mapping) else None
    size = entry.get("size")
    return Pin(
        source,
        f"{endpoint}/{repository}/resolve/{commit}/{urllib.parse.quote(chosen)}",
        commit,
        digest if isinstance(digest, str) and SHA256.fullmatch(digest) else "",
        printable(licence)[:TEXT_LIMIT] if isinstance(licence, str) and licence else "unknown",
        size if isinstance(size, int) and size > 0 else 0,
    )


class _OnlyAllowed(urllib.request.HTTPRedirectHandler):
    """Follows no redirection from https to anything else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _is_allowed(newurl):
            raise ModelError(f"{req.full_url} leads to {newurl:.200}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener(_OnlyAllowed)
    request = urllib.request.Request(url, headers={"User-Agent": "cgconvert", **headers})
    response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
    return response


def _json(url: str, source: str) -> dict[str, Any]:
    """What a hub says about a repository. Raises `ModelError`."""
    data: object = None
    for attempt in range(ATTEMPTS):
        try:
            with _open(url, {"Accept": "application/json"}) as response:
                text = response.read(ANSWER_LIMIT + 1)
            if len(text) > ANSWER_LIMIT:
                raise ModelError(f"{source}: the answer of {url} has more than {ANSWER_LIMIT} bytes")
            data = json.loads(text)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS - 1:
                raise ModelError(f"{source}: {_refused(error)}") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1:
                raise ModelError(f"{source}: {url} cannot be reached ({first_line(error)})") from error
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{source}: the answer of {url} is not JSON") from error
        time.sleep(PAUSE * 2**attempt)
    if not isinstance(data, dict):
        raise ModelError(f"{source}: the answer of {url} is not a JSON object")
    return data


def _refused(error: urllib.error.HTTPError) -> str:
    if error.code in (401, 403):
        return (
            f"the server wants a password for it ({error.code}); download it yourself, then import the file"
        )
    if error.code == 404:
        return "there is no such repository, revision or file (404)"
    return f"the server answers {error.code}"


def _download(pin: Pin, path: Path, progress: Progress) -> Pin:
    """The file at `path`, whole and checked; returns the pin with its checksum and size.

    Bytes that are there already are continued, if the server says that the file is still the same.
    """
    partial, mark = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.etag")
    complaint = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            progress.note(f"{path.name}: {complaint}; trying again")
            time.sleep(PAUSE * 2 ** (attempt - 1))
        before = partial.stat().st_size if partial.exists() else 0
        try:
            total = _fetch(pin, partial, mark, progress)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # what is here is not a beginning of what is there
                partial.unlink(missing_ok=True)
                complaint = "the file has changed"
                continue
            if error.code < 500:
                raise ModelError(f"{pin.source}: {_refused(error)}") from error
            complaint = f"the server answers {error.code}"
            continue
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            reason = first_line(reason) if isinstance(reason, Exception) else printable(str(reason))
            complaint = f"the connection broke off ({reason})"
            continue
        size = partial.stat().st_size
        if total is not None and size < total:
            complaint = f"the connection broke off after {size} of {total} bytes"
            continue
        digest = file_sha256(partial)
        if (pin.bytes and size != pin.bytes) or (pin.sha256 and digest != pin.sha256):
            partial.unlink()
            mark.unlink(missing_ok=True)
            if before:  # perhaps only what was there from before was wrong
                complaint = "what was there from an earlier attempt does not fit"
                continue
            wanted = pin.sha256 or f"{pin.bytes} bytes"
            raise ModelError(
                f"{pin.source}: the server gave another file than promised ({digest}, {size} bytes, "
                f"instead of {wanted}); nothing of it is kept"
            )
        partial.replace(path)
        mark.unlink(missing_ok=True)
        return Pin(pin.source, pin.url, pin.commit, digest, pin.licence, size)
    raise ModelError(f"{pin.source}: not downloaded: {complaint}; the same command goes on where it stopped")


def _fetch(pin: Pin, partial: Path, mark: Path, progress: Progress) -> int | None:
    """One request, whose bytes are added to those that are there; the size of the whole file if known."""
    start = partial.stat().st_size if partial.exists() else 0
    etag = mark.read_text() if start and mark.exists() else ""
    if start and not (etag or pin.sha256):  # nothing would tell whether it is still the same file
        start = 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Range"] = etag
    with _open(pin.url, headers) as response:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        is_rest = response.status == 206 and found is not None and int(found[1]) == start
        if response.status == 206 and not is_rest:
            raise http.client.HTTPException("the server gave another part than asked for")
        length = response.headers.get("Content-Length", "")
        total = int(found[2]) if is_rest and found else int(length) if length.isdigit() else None
        if (total or 0) > SIZE_LIMIT:
            raise ModelError(
                f"{pin.source}: it has {total} bytes, more than any generator (limit {SIZE_LIMIT})"
            )
        tag = response.headers.get("ETag", "")
        mark.write_text("" if tag.startswith("W/") else tag)
        done = start if is_rest else 0
        progress.begin(partial.name.removesuffix(".part"), total, "byte")
        with partial.open("ab" if is_rest else "wb") as file:
            while chunk := response.read1(CHUNK):
                done += len(chunk)
                if done > min(total or SIZE_LIMIT, SIZE_LIMIT):
                    raise ModelError(f"{pin.source}: the server gives more than {total or SIZE_LIMIT} bytes")
                file.write(chunk)
                progress.advance(done)
    return total
