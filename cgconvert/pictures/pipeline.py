"""Pictures through the network: find -> decode -> translate -> encode, overlapped.

    find -> jobs -> decode -> decoded -> translate -> translated -> encode
    one thread      as many as cores     one for each device       as many as cores

Between them are bounded channels, and the memory of all pictures on their way is bounded as a whole, so a
million pictures take the memory of a few. The caller's thread only watches: it shows the progress and hears
interrupts, also while the network is at work.

The frames of an animation and the pages of a TIFF take the same way as pictures of their own. One file at a
time is decoded to frames, and one thread puts the results into their file, in the order of the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from cgconvert.errors import Interrupted, OutputError
from cgconvert.host.interrupts import listening
from cgconvert.host.objects import AnyPath, as_place
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.decoding import decode
from cgconvert.pictures.finding import find
from cgconvert.pictures.plan import ImagePlan, plan_dir, plan_images
from cgconvert.pictures.result import Dropped, ImagesResult, Tally
from cgconvert.pictures.run import ImageRun
from cgconvert.pictures.translating import translate
from cgconvert.pictures.writing import encode, encode_frames
from cgconvert.progress import Progress, Silent
from cgconvert.scale.files import Failure

__all__ = ["Dropped", "Failure", "ImagesResult", "convert_dir", "convert_images", "run_images"]


def run_images(
    plan: ImagePlan, progress: Progress, tally: Tally | None = None, workers_count: int | None = None
) -> ImagesResult:
    """Convert every picture of the plan that has no result yet.

    `tally` tells what has happened also where this raises. Raises `Interrupted`, `OutputError`, `ModelError`,
    `UsageError`; single pictures that fail are in the result. A watched folder ends with an interrupt, which
    is its normal end. However it ends, no half-written file is at a final name.
    """
    tally = tally or Tally(plan)
    run = ImageRun(plan, progress, tally, workers_count)
    total = None if run.watch else plan.total
    complete = False
    try:
        with listening() as stop:
            progress.begin("Watching" if run.watch else "Converting", total, "picture")
            with run.workers as workers:
                workers.start("find", partial(find, run))
                for _ in range(run.codecs):
                    workers.start("decode", partial(decode, run))
                for number in range(run.devices):
                    workers.start("translate", partial(translate, run, number))
                workers.start("encode-frames", partial(encode_frames, run))
                for _ in range(run.codecs):
                    workers.start("encode", partial(encode, run))
                workers.watch(stop)
        complete = True
    except KeyboardInterrupt:
        if not run.watch:
            raise Interrupted(f"interrupted; {run.finished_so_far()}") from None
        complete = True
    except OutputError as error:
        raise OutputError(f"{error}; {run.finished_so_far()}") from error
    finally:
        run.claims.close()
        progress.finish()
        tally.stop(complete)
    return tally.result()


def convert_dir(
    folder: str | AnyPath,
    output: str | AnyPath | None = None,
    model: str | Path = "photo2monet",
    options: ImageOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> ImagesResult:
    """Convert every picture in a folder and the folders in it, into the same tree below `output`.

    `output` None: `FOLDER.MODEL` beside it. Results that are there already are skipped, so a run that was
    broken off goes on. Pictures that cannot be converted are in the result's `failures`; the others are
    done. Raises `UsageError`, `ModelError`, `OutputError`, `Interrupted` (on Ctrl-C).
    """
    target = None if output is None else as_place(output)
    plan = plan_dir(
        as_place(folder), target, model, options or ImageOptions(), engine_options or EngineOptions()
    )
    return run_images(plan, progress or Silent())


def convert_images(
    files: Iterable[str | AnyPath],
    output: str | AnyPath | None = None,
    model: str | Path = "photo2monet",
    options: ImageOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> ImagesResult:
    """Convert single files to `output`, a file (for one) or a folder; None: `NAME.MODEL.EXT` beside each.

    Raises as `convert_dir` does; a single file whose result is there already is an `OutputError`.
    """
    target = None if output is None else as_place(output)
    paths = [as_place(file) for file in files]
    plan = plan_images(paths, target, model, options or ImageOptions(), engine_options or EngineOptions())
    return run_images(plan, progress or Silent())
