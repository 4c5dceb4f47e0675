"""A video through the network: decode, translate and encode, each in a thread of its own.

    decode -> decoded -> translate -> translated -> steady -> steadied -> encode

Between them are channels bounded in bytes, so that memory does not grow with the video. The caller's thread
only watches: it shows the progress and hears interrupts, also while the network is at work.

Unless `resume` is off the frames are encoded in closed segments, which are kept beside the result until it is
complete: what was broken off goes on from the last of them. The segments are joined without encoding anew.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from cgconvert.engines.kept import KeptEngine
from cgconvert.errors import Interrupted
from cgconvert.host.files import atomic_path
from cgconvert.host.interrupts import Stop, listening
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Progress, Silent
from cgconvert.video.decoding import decode
from cgconvert.video.estimate import Measurement
from cgconvert.video.jobs import kept_segments
from cgconvert.video.plan import VideoPlan, plan_video
from cgconvert.video.report import VideoReport
from cgconvert.video.route import choose_route
from cgconvert.video.run import OnFrame, VideoRun
from cgconvert.video.translating import translate
from cgconvert.video.writing import encode, steady


def convert_video(
    source: str | Path,
    output: str | Path | None = None,
    model: str | Path = "photo2monet",
    options: VideoOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
    *,
    on_frame: OnFrame | None = None,
) -> VideoReport:
    """Convert a video to another look; sound, subtitles, chapters and all timestamps stay as they are.

    `output` None: beside the source, as NAME.MODEL.EXT. The result appears whole or not at all. Raises
    `CgconvertError` subclasses; `Interrupted` on Ctrl-C.

    `on_frame(pixels, seconds)` is called in a thread of the pipeline with each result of the network, in
    order: RGB (H, W, 3) of the work size, uint8 or for more than 8 bits uint16, and its time in the source.
    The array is the pipeline's own and is not to be changed. `strength`, `keep_colours`, `size` and
    `compare` come after it. What it raises ends the run and is raised here. Every frame is shown, so the run
    begins anew each time (`resume` is off), and on a CUDA device frames go as RGB, which is slower.
    """
    options = options or VideoOptions()
    plan = plan_video(
        Path(source),
        Path(output) if output is not None else None,
        model,
        options if on_frame is None else replace(options, resume=False),
        engine_options or EngineOptions(),
    )
    if on_frame is not None and plan.route.target is not None:
        plan = choose_route(plan, plan.route.device, as_planes=False)
    return run_video(plan, progress or Silent(), on_frame=on_frame)


def run_video(
    plan: VideoPlan,
    progress: Progress,
    engines: KeptEngine | None = None,
    measurement: Measurement | None = None,
    on_frame: OnFrame | None = None,
) -> VideoReport:
    """Carry out a plan. Raises as `convert_video` does, whose `on_frame` needs a route of RGB frames.

    `engines` keeps the engine for the next video, and is the caller's to close. None: it is closed here.
    `measurement` estimates by the first frames what all of them take. None: `progress` is told, for a long
    run.
    """
    run = VideoRun(plan, progress, engines, measurement, on_frame)
    progress.note(f"{plan.source.name} -> {plan.output.name}: loading {plan.card.name}")
    for note in plan.route.notes:
        progress.note(note)
    # What is entered last ends first: the threads, then source and sink, then the file gets its name, and
    # then its segments are removed.
    with (
        listening() as stop,
        kept_segments(plan) if plan.options.resume else nullcontext() as kept,
        atomic_path(plan.output, plan.options.overwrite) as temporary,
        ExitStack() as opened,
    ):
        for note in kept.notes if kept is not None else ():
            progress.note(note)
        if kept is not None and kept.frames:
            progress.note(f"going on after frame {kept.frames}, which was reached before")
        run.open(opened, kept, temporary)
        try:
            work(run, stop)
        except KeyboardInterrupt:
            of = f" of about {plan.info.frames}" if plan.info.frames else ""
            again = "nothing is left at"
            if kept is not None and kept.frames:
                again = f"the same command goes on after frame {kept.frames}; nothing is yet at"
            raise Interrupted(
                f"interrupted after {run.sink.frames}{of} frames; {again} {plan.output}"
            ) from None
    return run.report()


def work(run: VideoRun, stop: Stop, limit: int | None = None) -> None:
    """Let the threads of an opened run do their work, and watch them. Raises `KeyboardInterrupt`.

    `limit`: it ends after so many frames, with their segments, which are not joined.
    """
    with run.workers as workers:
        workers.start("decode", partial(decode, run, limit))
        workers.start("translate", partial(translate, run))
        if run.is_steadied:
            workers.start("steady", partial(steady, run))
        workers.start("encode", partial(encode, run, limit is None))
        workers.watch(stop, run.show)
