"""Workers for tests that end, in the middle of their work, when they meet an input with a certain name."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from cgconvert.cluster.images import BlockResult, ImageWorker
from cgconvert.cluster.models import ModelFile
from cgconvert.cluster.videos import VideoOutcome, VideoWork, VideoWorker
from cgconvert.pictures.files import ImageJob
from cgconvert.video import resume
from cgconvert.video.folder import VideosPlan


def _die_at(source: Any) -> None:
    """End at once for a source with "poison" in its name, and for one with "once" the first time."""
    name = Path(str(source))
    if "poison" in name.name:
        os._exit(1)
    if "once" in name.name:
        mark = name.with_suffix(".died")
        if not mark.exists():
            mark.touch()
            os._exit(1)


class DyingImageWorker(ImageWorker):
    def convert(self, jobs: list[ImageJob], again: bool) -> BlockResult:
        for job in jobs:
            _die_at(job.source)
        return super().convert(jobs, again)


class DyingVideoWorker(VideoWorker):
    def convert(self, work: VideoWork, again: bool) -> VideoOutcome:
        _die_at(work.job.source)
        return super().convert(work, again)


class ShortVideoWorker(VideoWorker):
    """One whose segments are short, and that dies once in the middle of a chunk."""

    def __init__(self, plan: VideosPlan, model: ModelFile) -> None:
        resume.SEGMENT_FRAMES = 5
        super().__init__(plan, model)

    def convert(self, work: VideoWork, again: bool) -> VideoOutcome:
        if work.one is not None and work.one.number == 1:
            mark = Path(str(work.job.source)).with_suffix(".died")
            if not mark.exists():
                mark.touch()
                threading.Timer(0.3, lambda: os._exit(1)).start()
        return super().convert(work, again)


class NeverReadyWorker(ImageWorker):
    def ready(self) -> bool:
        os._exit(1)
