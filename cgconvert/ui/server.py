"""The page's server: what the page asks for, as JSON, pictures and events."""

from __future__ import annotations

import asyncio
import json
import math
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cgconvert.errors import CgconvertError, OutputError, UsageError, printable
from cgconvert.host.files import output_error
from cgconvert.host.folders import data_folder
from cgconvert.models.catalog import list_models
from cgconvert.options import EngineOptions
from cgconvert.preview.choice import takes_pictures
from cgconvert.preview.shots import is_picture, is_video
from cgconvert.sizes import check_work_size
from cgconvert.ui.access import Access, Guard
from cgconvert.ui.places import OutsideError, Places
from cgconvert.ui.queue import Queue, QueuedJob
from cgconvert.ui.runner import learning_folder, remove_what_is_kept, start_runner
from cgconvert.ui.studio import Look, Studio, described, video_options

STATIC = Path(__file__).parent / "static"
MOST_UPLOAD = 500 * 2**20
"""Bytes of a file that is dropped on the page. Larger ones are chosen where they lie."""
LOOK = 0.7
"""Seconds between two looks at the queue while a job is under way. Without one nothing looks."""
HEARTBEAT = 20.0
MOST_EDGE = 1920
KEPT_SECONDS = 24 * 3600.0
"""How long a file that was dropped on the page is kept if no job is about it."""

Handler = Callable[[Request], Awaitable[Response]]


class Page:
    """All that the routes share."""

    def __init__(self, places: Places, queue: Queue, limit: int = MOST_UPLOAD) -> None:
        self.uploads = queue.folder / "uploads"
        self.uploads.mkdir(exist_ok=True)
        self._forget_uploads(queue)
        self.places = Places([*places.roots, self.uploads])
        self.listed = places
        self.queue, self.limit = queue, limit
        self.studio = Studio()
        self.changed = asyncio.Event()
        self.news = asyncio.Condition()
        self.state = ""

    def _forget_uploads(self, queue: Queue) -> None:
        """Remove what was dropped on the page a day ago or earlier, and that no job on the list is about."""
        needed = {parent for job in queue.jobs() for text in job.arguments for parent in Path(text).parents}
        for folder in self.uploads.iterdir():
            if folder not in needed and time.time() - folder.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    async def watch(self) -> None:
        """Look at the queue while something is under way, and wake those who listen when it changes."""
        while True:
            self.changed.clear()
            jobs = await run_in_threadpool(self.queue.jobs)
            is_active = any(job.state in ("waiting", "running") for job in jobs)
            if is_active:
                await run_in_threadpool(start_runner, self.queue)
            state = json.dumps([job_as_dict(job) for job in jobs])
            if state != self.state:
                self.state = state
                async with self.news:
                    self.news.notify_all()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), LOOK if is_active else None)


def job_as_dict(job: QueuedJob) -> dict[str, Any]:
    """A job as the page shows it."""
    hidden = ("arguments", "pid", "attempts", "report")
    data = {name: value for name, value in asdict(job).items() if name not in hidden}
    left = job.seconds_left
    return {
        **data,
        "seconds_left": None if left is None else round(left),
        "has_report": bool(job.report) and Path(job.report).exists(),
        "has_result": job.state == "done" and bool(job.output) and Path(job.output).is_file(),
        "has_folder": job.state == "done" and bool(job.output) and Path(job.output).is_dir(),
        "preview": _preview_stamp(job),
    }


def _preview_stamp(job: QueuedJob) -> int | None:
    """A number that changes with the preview of a look that is learned; None: there is no preview."""
    if job.kind != "learn":
        return None
    try:
        return preview_of(job).stat().st_mtime_ns // 1_000_000
    except OSError:
        return None


def preview_of(job: QueuedJob) -> Path:
    """The growing preview of a look that is learned."""
    return learning_folder(job) / "preview.jpg"


def as_look(values: Any) -> Look:
    """Read a look from a request. Raises `UsageError`."""
    try:
        strength = float(values.get("strength") or 0 if "strength" in values else 1)
        keep = str(values.get("keep_colours", "")).lower() in ("1", "true", "on")
        stroke = str(values.get("stroke") or "") or None
        model = str(values["model"])
    except (KeyError, TypeError, ValueError):
        raise UsageError("the look is not complete") from None
    if not any(one.name == model for one in list_models()):  # names only: a path could lead anywhere
        raise UsageError(f"there is no look {printable(model)[:80]}")
    if not (math.isfinite(strength) and 0 <= strength <= 1):
        raise UsageError("the strength is no number from 0 to 1")
    check_work_size(None, stroke)
    return Look(model, strength, keep, stroke if stroke != "medium" else None)


def as_seconds(text: str | None) -> float:
    """Read a time from a request. Raises `UsageError`."""
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError("that is no time")
    return seconds


async def told_errors(request: Request, error: Exception) -> Response:
    """An error that a user can act on, in the words of the command line without its options."""
    code = 403 if isinstance(error, OutsideError) else 400
    text = re.sub(r"`(\w+)(?:=([^`]+))?`", lambda m: m[1].replace("_", " "), str(error))
    return JSONResponse({"error": printable(text)}, code)


async def told_queue(request: Request, error: Exception) -> Response:
    """The queue's file cannot be read or written: mostly a full disk."""
    return JSONResponse({"error": f"the queue of jobs cannot be written: {error}"}, 507)


async def told_failure(request: Request, error: Exception) -> Response:
    """What nobody foresaw. The server prints the traceback."""
    return JSONResponse({"error": f"unexpected {type(error).__name__}: the terminal shows more"}, 500)


def create_app(
    places: Places,
    access: Access,
    queue: Queue,
    limit: int = MOST_UPLOAD,
    learns: bool = False,
) -> Starlette:
    """The whole server as an ASGI application. `learns`: whether `cgconvert learn` is there."""
    page = Page(places, queue, limit)

    async def index(request: Request) -> Response:
        asyncio.get_running_loop().run_in_executor(None, page.studio.warm_up)
        return FileResponse(STATIC / "index.html")

    async def looks(request: Request) -> Response:
        found = [
            {
                "name": model.name,
                "title": model.card.title or model.name,
                "target": model.card.target_domain,
                "licence": model.card.licence,
            }
            for model in await run_in_threadpool(list_models)
            if model.card is not None and takes_pictures(model.card)
        ]
        return JSONResponse({"looks": found, "learns": learns, "upload_limit": page.limit})

    async def files(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(page.listed.listed, request.query_params.get("path", "")))

    async def media(request: Request) -> Response:
        path = page.places.find(request.query_params.get("path", ""))
        return JSONResponse(await run_in_threadpool(described, path))

    async def frame(request: Request) -> Response:
        query = request.query_params
        path = page.places.find(query.get("path", ""))
        if not path.is_file() or not (is_video(path) or is_picture(path)):
            raise UsageError("that is neither a video nor a picture")
        look = as_look(query) if query.get("model") else None
        edge = query.get("edge", "960")
        size = min(MOST_EDGE, max(64, int(edge))) if edge.isdigit() and len(edge) < 6 else 960
        data = await run_in_threadpool(page.studio.frame, path, as_seconds(query.get("t")), look, size)
        return Response(data, media_type="image/jpeg")

    async def clip(request: Request) -> Response:
        query = request.query_params
        path = page.places.find(query.get("path", ""))
        if not is_video(path):
            raise UsageError("that is no video")
        made = await run_in_threadpool(page.studio.clip, path, as_seconds(query.get("t")), as_look(query))
        return FileResponse(made, media_type="video/mp4")

    async def plan(request: Request) -> Response:
        planned = await run_in_threadpool(_planned, page, await _json(request))
        return JSONResponse(
            {"output": str(planned.output), "lines": list(planned.lines), "notes": list(planned.notes)}
        )

    async def estimate(request: Request) -> Response:
        asked = await _json(request)
        path, look = page.places.find(str(asked.get("path", ""))), as_look(asked)
        return JSONResponse(await run_in_threadpool(page.studio.estimate, path, look, None))

    async def list_jobs(request: Request) -> Response:
        return JSONResponse([job_as_dict(job) for job in await run_in_threadpool(queue.jobs)])

    async def add_job(request: Request) -> Response:
        asked = await _json(request)
        make = _learning if asked.get("kind") == "learn" else _conversion
        job = await run_in_threadpool(make, page, asked)
        page.changed.set()
        return JSONResponse(job_as_dict(job), 201)

    async def act(request: Request) -> Response:
        number, what = request.path_params["number"], request.path_params["what"]
        actions = {
            "pause": queue.pause,
            "resume": queue.resume,
            "cancel": queue.cancel,
            "remove": queue.remove,
        }
        if what not in actions:
            raise UsageError("a job can be paused, resumed, cancelled and removed")
        await run_in_threadpool(actions[what], number)
        job = queue.get(number)
        if what == "cancel" and job.state == "cancelled" and job.started:  # no runner does it
            await run_in_threadpool(remove_what_is_kept, job)
        page.changed.set()
        return JSONResponse({})

    async def result(request: Request) -> Response:
        job = queue.get(request.path_params["number"])
        path = page.places.find(job.output)
        if job.state != "done" or not path.is_file():
            raise UsageError("this job has no single result")
        how = "inline" if "show" in request.query_params else "attachment"
        return FileResponse(path, filename=path.name, content_disposition_type=how)

    async def report(request: Request) -> Response:
        job = queue.get(request.path_params["number"])
        if not job.report or not Path(job.report).is_file():
            raise UsageError("this job has no report")
        return FileResponse(job.report, media_type="application/json", filename=f"report-{job.id}.json")

    async def growing(request: Request) -> Response:
        job = queue.get(request.path_params["number"])
        path = preview_of(job)
        if job.kind != "learn" or not path.is_file():
            raise UsageError("there is no preview yet")
        return FileResponse(path, media_type="image/jpeg")

    async def upload(request: Request) -> Response:
        return JSONResponse(await _receive(page, request), 201)

    async def events(request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            sent = None
            while True:
                if page.state != sent:
                    sent = page.state
                    yield f"event: jobs\ndata: {sent}\n\n"
                    continue
                try:
                    async with page.news:
                        if page.state == sent:
                            await asyncio.wait_for(page.news.wait(), HEARTBEAT)
                except TimeoutError:
                    yield ": still here\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(page.watch())
        try:
            yield
        finally:
            watching.cancel()
            page.studio.close()

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/api/looks", looks),
            Route("/api/files", files),
            Route("/api/media", media),
            Route("/api/frame", frame),
            Route("/api/clip", clip),
            Route("/api/plan", plan, methods=["POST"]),
            Route("/api/estimate", estimate, methods=["POST"]),
            Route("/api/upload", upload, methods=["POST"]),
            Route("/api/events", events),
            Route("/api/jobs", list_jobs),
            Route("/api/jobs", add_job, methods=["POST"]),
            Route("/api/jobs/{number:int}/result", result),
            Route("/api/jobs/{number:int}/report", report),
            Route("/api/jobs/{number:int}/preview", growing),
            Route("/api/jobs/{number:int}/{what}", act, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=lifespan,
        exception_handlers={
            CgconvertError: told_errors,
            sqlite3.OperationalError: told_queue,
            Exception: told_failure,
        },
    )
    app.add_middleware(Guard, access=access)
    return app


async def _json(request: Request) -> dict[str, Any]:
    try:
        data = await request.json()
    except (ValueError, ClientDisconnect):
        raise UsageError("the request is no JSON") from None
    if not isinstance(data, dict):
        raise UsageError("the request is no JSON object")
    return data


def _target(page: Page, path: Path, asked: dict[str, Any], look: Look) -> Path | None:
    """Where the result goes, if the page says so; None: beside the source."""
    name = str(asked.get("output") or "").strip()
    if not name:
        return None
    if Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise UsageError("the result's name is no name of a file")
    return page.places.allowed(str(path.parent / name))


@dataclass(frozen=True)
class Planned:
    """What will be done, in lines and notes, and where the result goes."""

    output: Path
    lines: Sequence[str]
    notes: Sequence[str]


def _planned(page: Page, asked: dict[str, Any]) -> Planned:
    """Plan a conversion. Where the page names no result and the usual name is taken, it gets a number."""
    path, look = page.places.find(str(asked.get("path", ""))), as_look(asked)
    target = _target(page, path, asked, look)
    waiting = {job.output for job in page.queue.jobs() if not job.is_over}
    if target is not None and str(target) in waiting:
        raise UsageError(f"a job for {printable(target.name)} is in the queue already")
    try:
        plan = _plan_of(path, target, look)
        if target is not None or str(plan.output) not in waiting:
            return plan
    except OutputError:
        if target is not None:
            raise
    if path.is_dir():
        usual = path.with_name(f"{path.name}.{look.model}")  # what is there may be no folder: no plan helps
        stem, suffix = usual.name, ""
    else:
        usual = _plan_of(path, None, look, overwrite=True).output
        stem, suffix = usual.stem, usual.suffix
    for number in count(2):
        target = usual.with_name(f"{stem}-{number}{suffix}")
        if str(target) not in waiting and not target.exists():
            break
    return _plan_of(path, target, look)


def _plan_of(path: Path, target: Path | None, look: Look, overwrite: bool = False) -> Planned:
    """Plan by the kind of the source. Raises what the plans raise."""
    if is_video(path):
        from cgconvert.video.plan import plan_video

        wanted = replace(video_options(look), overwrite=overwrite)
        video = plan_video(path, target, look.model, wanted, EngineOptions())
        return Planned(video.output, video.describe(), video.warnings)
    from cgconvert.options import ImageOptions
    from cgconvert.pictures.plan import plan_dir, plan_images

    options = ImageOptions(
        strength=look.strength, keep_colours=look.keep_colours, stroke=look.stroke, overwrite=overwrite
    )
    if path.is_dir():
        pictures = plan_dir(path, target, look.model, options, EngineOptions())
    else:
        pictures = plan_images([path], target, look.model, options, EngineOptions())
    output = pictures.output or pictures.files[0].output
    assert isinstance(output, Path)  # the page knows no objects in buckets
    if not path.is_dir() and output.exists() and not overwrite:
        raise OutputError(f"{printable(output.name)} exists already: choose another name")
    lines = [line for line in pictures.describe() if not line.startswith("picture")]
    return Planned(output, lines, pictures.notes)


def _conversion(page: Page, asked: dict[str, Any]) -> QueuedJob:
    """Put the conversion of a video, a picture or a folder of pictures into the queue."""
    path, look = page.places.find(str(asked.get("path", ""))), as_look(asked)
    command = "video" if is_video(path) else "dir" if path.is_dir() else "image"
    arguments = [command, str(path), "--model", look.model, "--strength", f"{look.strength:g}"]
    arguments += ["--keep-colours"] if look.keep_colours else []
    arguments += ["--stroke", look.stroke] if look.stroke else []
    arguments += ["--log", "json"] if command != "image" else []
    arguments += ["--output"]
    if any(job.arguments[: len(arguments)] == arguments and not job.is_over for job in page.queue.jobs()):
        raise UsageError(f"{printable(path.name)} is in the queue already in this look")
    output = str(_planned(page, asked).output)
    page.places.allowed(output)
    kind = "video" if command == "video" else "pictures"
    return page.queue.add(kind, f"{path.name} as {look.model}", path, output, [*arguments, output])


def _learning(page: Page, asked: dict[str, Any]) -> QueuedJob:
    """Put the learning of a look into the queue."""
    from cgconvert.card import check_name

    paintings = page.places.find(str(asked.get("paintings", "")))
    source = page.places.find(str(asked.get("source", "")))
    name = check_name(str(asked.get("name", "")).strip())
    try:
        minutes = float(asked.get("minutes", 10))
    except (TypeError, ValueError):
        minutes = math.nan
    if not 0.1 <= minutes <= 100000:
        raise UsageError("the minutes are no number of at least 0.1")
    if not paintings.is_dir():
        raise UsageError("choose a folder of paintings")
    if any(model.name == name for model in list_models()):
        raise UsageError(f"there is a look {name} already: choose another name")
    if any(job.kind == "learn" and job.title == name and not job.is_over for job in page.queue.jobs()):
        raise UsageError(f"a look {name} is being learned already")
    if (data_folder() / "learn" / name).exists():
        raise UsageError(f"the learning of a look {name} was begun earlier: choose another name")
    option = "--photos" if source.is_dir() else "--for"
    arguments = ["learn", str(paintings), option, str(source), "--name", name, "--minutes", f"{minutes:g}"]
    return page.queue.add("learn", name, paintings, "", arguments)


async def _receive(page: Page, request: Request) -> dict[str, Any]:
    """Write a file that is dropped on the page into a folder of its own. Raises `UsageError`."""
    name = Path(request.query_params.get("name", "").replace("\\", "/")).name
    if not name or name.startswith(".") or not name.isprintable() or len(name.encode()) > 200:
        raise UsageError("the file's name cannot be used here")
    if not (is_video(Path(name)) or is_picture(Path(name))):
        raise UsageError(f"{name} is neither a video nor a picture")
    told = request.headers.get("content-length", "")
    room = min(page.limit, shutil.disk_usage(page.uploads).free // 2)
    too_large = UsageError(
        f"{name} is larger than {room >> 20} MiB: choose it where it lies, which needs no copy"
    )
    if told.isdigit() and int(told) > room:
        raise too_large
    folder = page.uploads / secrets.token_hex(8)
    folder.mkdir()
    path, size = folder / name, 0
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > room:
                    raise too_large
                await run_in_threadpool(file.write, chunk)
        if not size:
            raise UsageError(f"{name} is empty")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, ClientDisconnect):
            raise UsageError("the upload was broken off") from None
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise
    return {"path": str(path), "name": name}


def roots_of(named: Sequence[Path]) -> Places:
    """The folders that were named, or else the user's home."""
    return Places(named or [Path.home()])
