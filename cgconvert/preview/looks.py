"""Pictures in several looks, with engines that stay ready: the second picture of a look takes no set-up."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cgconvert.card import ModelCard
from cgconvert.engines.choose import choose_device
from cgconvert.engines.flat import FlatFrames, has_instance_norms
from cgconvert.engines.job import EngineJob
from cgconvert.engines.kept import KeptEngine
from cgconvert.engines.pixels import PixelFrames
from cgconvert.engines.translator import STAGES, Translator
from cgconvert.finish import Finish, lacks_detail
from cgconvert.frames import Frame
from cgconvert.host.channels import StageClock
from cgconvert.media.picture.codec import to_8_bit
from cgconvert.media.picture.finish import finished
from cgconvert.media.picture.resize import resized
from cgconvert.media.video.probe import sample_pixels
from cgconvert.models.catalog import find_model
from cgconvert.models.files import read_card
from cgconvert.options import EngineOptions
from cgconvert.preview.shots import Shot
from cgconvert.progress import Progress, Silent
from cgconvert.sizes import check_work_size, network_size
from cgconvert.tensors.transfers import own_device, transfers_for

MOST_ENGINES = 8
"""Looks that stay ready. The one that was not used for longest gives its memory back for the next."""
MOST_RESULTS = 24
"""Results of networks that are kept, so that a change of strength needs no network."""
WIDE = 16
"""Bits of a result that is finished. It is rounded to 8 only then, as in a conversion."""


class Looks:
    """Paints shots in looks. Use it from one thread, and close it at the end.

    Raises `UsageError`, `ModelError`, and what `create_job` raises where an engine does not work.
    """

    def __init__(self, options: EngineOptions, progress: Progress | None = None) -> None:
        self.options = replace(options, batch=1)
        self.progress = progress or Silent()
        self.engines: OrderedDict[Path, KeptEngine] = OrderedDict()
        self.ready: dict[tuple[Path, tuple[int, ...]], EngineJob] = {}
        self.results: OrderedDict[tuple[int, Path, tuple[int, int]], tuple[Shot, np.ndarray]] = OrderedDict()
        own_device(choose_device(options.device))

    def paint(
        self,
        shot: Shot,
        model: str | Path,
        finish: Finish | None = None,
        stroke: str | float | None = None,
        work_size: str | None = None,
        edge: int | None = None,
    ) -> np.ndarray:
        """Return a shot in a look, uint8 RGB (H, W, 3), its longer edge at most `edge` pixels.

        The network sees the shot as in a conversion with these options. What is shown is made smaller
        before it is finished. The options mean what they mean in `ImageOptions`.
        """
        finish = finish or Finish()
        check_work_size(work_size, stroke)
        path = find_model(model)
        card = read_card(path)
        height, width = shot.pixels.shape[:2]
        seen = network_size(work_size, stroke, card, (width, height), (width, height))
        shown = shrunk(shot.pixels, edge)
        if finish.strength == 0:
            return shown
        result = self._result(shot, path, card, seen)
        size = shown.shape[1], shown.shape[0]
        if finish.is_plain and not lacks_detail(seen, size):
            return to_8_bit(resized(result, *size))
        return finished(shown, result, finish)

    def _result(self, shot: Shot, path: Path, card: ModelCard, seen: tuple[int, int]) -> np.ndarray:
        """What the network makes of a shot that it sees at a size: uint16 (h, w, 3)."""
        key = id(shot), path, seen
        if key in self.results:
            self.results.move_to_end(key)
            return self.results[key][1]
        pixels = resized(shot.pixels, *seen)
        samples = partial(self._samples, shot, seen)
        job = self._engine(path, pixels, samples)
        flat = None
        if shot.info is not None and has_instance_norms(job.engine.model.generator):
            flat = FlatFrames(job.engine, samples, job.note)
        kind = PixelFrames(card, transfers_for(job.engine.device), WIDE)
        translator = Translator(job, kind, StageClock(dict.fromkeys(STAGES, "translate")), flat)
        frames = [*translator.translate([Frame(pixels, 0)]), *translator.finish()]
        result = frames[0].pixels.copy()
        # The shot is kept with its result, so that no other object gets its identity meanwhile.
        self.results[key] = shot, result
        if len(self.results) > MOST_RESULTS:
            self.results.popitem(last=False)
        return result

    def _samples(self, shot: Shot, seen: tuple[int, int], count: int) -> list[np.ndarray]:
        """Pictures from all over the video of a shot, or the shot itself."""
        if shot.info is None:
            return [resized(shot.pixels, *seen)]
        return sample_pixels(shot.source, shot.info, seen, count)

    def _engine(self, path: Path, pixels: np.ndarray, samples: partial[list[np.ndarray]]) -> EngineJob:
        """The engine of a model for pictures of a size, verified when it first gets one of that size."""
        key = path, pixels.shape
        kept = self.engines.get(path)
        if kept is None:
            kept = self.engines[path] = KeptEngine()
        self.engines.move_to_end(path)
        if key in self.ready and self.ready[key].engine is (kept.job and kept.job.engine):
            return self.ready[key]
        if len(self.engines) > MOST_ENGINES:
            oldest, engine = self.engines.popitem(last=False)
            engine.close()
            self.ready = {known: job for known, job in self.ready.items() if known[0] != oldest}
        job = kept.ready(path, self.options, pixels[None], self.progress, samples)
        self.ready[key] = job
        return job

    def close(self) -> None:
        """Give the memory of all engines back."""
        for engine in self.engines.values():
            engine.close()
        self.engines.clear()
        self.ready.clear()
        self.results.clear()


def shrunk(pixels: np.ndarray, edge: int | None) -> np.ndarray:
    """Return pixels (H, W, 3) whose longer edge is at most `edge`, averaged over areas."""
    height, width = pixels.shape[:2]
    if edge is None or max(height, width) <= edge:
        return pixels
    factor = edge / max(height, width)
    return resized(pixels, max(1, round(width * factor)), max(1, round(height * factor)))
