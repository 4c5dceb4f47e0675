"""The threads of a run over pictures that have a device: the network, in batches of one size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgconvert.errors import InputError, first_line
from cgconvert.host.interrupts import Breakable
from cgconvert.media.picture.strips import LargePicture
from cgconvert.pictures.batching import Groups
from cgconvert.pictures.items import Item
from cgconvert.pictures.run import PATIENCE, ImageRun

if TYPE_CHECKING:
    from cgconvert.pictures.network import Network


def translate(run: ImageRun, number: int) -> None:
    """Pictures through the network of device `number`, until there are no more.

    A device that fails leaves its pictures to the others.
    """
    item = run.decoded.take() or run.handover.wait()
    if item is not None:  # a run without a picture loads neither torch nor a model
        with Breakable():
            from cgconvert.pictures.network import Network, device_of
        device = device_of(run.plan, number) if run.devices > 1 else run.plan.engine.device
        network: Network[Item] = Network(run.plan, item.pixels, run.progress, run.clock, device)
        own = DeviceRun(run, network, device)
        run.tally.tell_engine(number, network.job.describe(), own.share())  # for who looks before the end
        try:
            own.translate_all(item)
        except Exception as error:  # whatever a driver or a library makes of a device that is lost
            own.failed = True
            if not run.handover.leave(own.held.values()):
                raise
            told = f"failed ({first_line(error, 200)}): {len(own.held)} pictures went to the others"
            network.job.note(told)
            run.progress.note(f"{device} {told}")
        finally:
            run.tally.tell_engine(number, network.job.describe(), own.share())
            network.close()
    run.translated.close()


@dataclass
class DeviceRun:
    """What one device does.

    `held` are the items that have been taken and not passed on, and `pictures` counts those that have.
    """

    run: ImageRun
    network: Network[Item]
    device: str
    held: dict[int, Item] = field(default_factory=dict)
    pictures: int = 0
    failed: bool = False
    groups: Groups[Item] = field(default_factory=Groups)

    def share(self) -> dict[str, Any]:
        """Its row in the report."""
        return {"device": self.device, "pictures": self.pictures, "failed": self.failed}

    def translate_all(self, item: Item | None) -> None:
        """Translate from this first item on."""
        while item is not None or (item := self._next()) is not None:
            self.held[id(item)] = item
            if item.large is not None:
                self._pass_on(self.network.finish())
                with self.run.failing_alone(item):
                    self._translate_large(item, item.large)
                self._let_go(item)
            else:
                size = self.network.padded_size(item.pixels)
                # Results that are to be finished have 16 bits, so they are not in a batch with others.
                key = size, item.pixels.dtype.name, item.finish is not None
                self.groups.add(key, item, self.network.batch_for(*size))
            item = None
            while (batch := self.groups.take_full()) is not None:
                self._pass_on(self.network.translate(batch))

    def _next(self) -> Item | None:
        """The next item. While there is none, what has been taken is translated; None if that was the last.

        While the device is busy nothing is lost by looking whether more pictures are there; an idle one waits
        a moment for its batch to fill. Then it gets what there is.
        """
        run, network = self.run, self.network
        while True:
            patience = 0 if network.in_flight else PATIENCE if self.groups or run.devices > 1 else None
            item = run.handover.take() or run.decoded.take(patience)
            if item is not None:
                return item
            if network.in_flight:
                self._pass_on(network.finish())
            elif (batch := self.groups.take_oldest()) is not None:
                self._pass_on(network.translate(batch))
            elif run.decoded.finished:
                return run.handover.wait()

    def _pass_on(self, results: Iterator[tuple[Item, np.ndarray | InputError]]) -> None:
        for item, result in results:
            self._let_go(item)
            with self.run.failing_alone(item):
                if isinstance(result, InputError):
                    raise result
                item.result, item.seen = result, None
                self.run.translated.put(item)

    def _let_go(self, item: Item) -> None:
        del self.held[id(item)]
        self.pictures += 1

    def _translate_large(self, item: Item, large: LargePicture) -> None:
        """The pixels of a large picture from one file to the other."""
        run, job = self.run, item.job

        def tell(done: int, total: int) -> None:
            run.count_parts(job, total, "tile")
            run.advance_parts(done)

        source, result = item.files
        size = large.height, large.width
        kept = None
        if item.kept is not None:
            assert isinstance(job.source, Path)
            kept = job.source, item.kept
        self.network.translate_file(source, result, size, large.dtype, run.workers.check, tell, kept)
        item.files.pop(0).close()
        run.translated.put(item)
