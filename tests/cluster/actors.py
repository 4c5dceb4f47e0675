"""Workers for tests that end, in the middle of their work, when they meet an input with a certain name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cgconvert.cluster.images import BlockResult, ImageWorker
from cgconvert.cluster.videos import VideoOutcome, VideoWorker
from cgconvert.pictures.files import ImageJob
from cgconvert.video.folder import VideoJob


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
    def convert(self, job: VideoJob, again: bool) -> VideoOutcome:
        _die_at(job.source)
        return super().convert(job, again)


class NeverReadyWorker(ImageWorker):
    def ready(self) -> bool:
        os._exit(1)
