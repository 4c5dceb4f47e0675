"""The thread of a run over a video that decodes it."""

from __future__ import annotations

from cgconvert.errors import InputError
from cgconvert.media.video.source import CopiedPacket
from cgconvert.tensors.transfers import own_device
from cgconvert.video.run import VideoRun


def decode(run: VideoRun, limit: int | None = None) -> None:
    """Frames of the source and packets of its other streams, in the order of the file.

    `limit`: it ends after so many frames.
    """
    if run.route.decoding_card is not None:
        own_device(run.device)
    items = iter(run.source)
    while limit is None or run.outcome.frames_in < limit:
        try:
            with run.clock.busy("decode"):
                item = next(items, None)
        except OSError as error:  # of the source: the output's own are told apart by the sink
            reason = error.strerror or error
            raise InputError(f"{run.plan.source}: cannot be read on ({reason})") from error
        run.check_strict()
        if item is None:
            break
        if isinstance(item, CopiedPacket) and run.kept is not None:
            continue  # written when the segments are joined, in the order of the file
        run.decoded.put(item)
        if not isinstance(item, CopiedPacket):
            run.outcome.frames_in += 1
            if run.route.target is not None and run.outcome.frames_in == 1:
                # A CUDA graph cannot be recorded while another thread allocates on the card.
                run.engine_ready.take()
    run.decoded.close()
