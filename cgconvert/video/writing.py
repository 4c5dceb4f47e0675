"""The threads of a run over a video that come after the network: one makes results steady, one encodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cgconvert.frames import Frame
from cgconvert.media.picture.resize import resized
from cgconvert.media.video.compare import compare
from cgconvert.media.video.sink import VideoSink
from cgconvert.media.video.source import CopiedPacket
from cgconvert.media.video.steady import Steadier
from cgconvert.tensors.transfers import own_device
from cgconvert.video import resume
from cgconvert.video.opening import open_sink, open_source
from cgconvert.video.run import VideoFrame, VideoRun
from cgconvert.video.segments import join_segments


def steady(run: VideoRun) -> None:
    """Results that change where their sources do; packets to copy pass by in their order."""
    plan, kept = run.plan, run.kept
    assert plan.steadiness is not None
    steadier = Steadier(plan.steadiness.strength, exact=plan.steadiness.exact)
    if kept is not None and run.resumed and not steadier.restore(kept.steady_state()):
        run.progress.note(
            f"how results were steadied up to frame {run.resumed} is lost: it begins anew there"
        )
    count = run.resumed
    for item in run.translated:
        if isinstance(item, Frame):
            assert item.seen is not None
            count += 1
            ends_segment = kept is not None and count % resume.SEGMENT_FRAMES == 0
            with run.clock.busy("steady"):
                pixels = steadier.step(item.seen, item.pixels)
                state = steadier.checkpoint() if ends_segment else None
            item = replace(item, pixels=pixels, seen=None, state=state)
        run.steadied.put(item)
    run.steadied.close()


def encode(run: VideoRun, joins: bool = True) -> None:
    """Results and packets into the file, which is ended and read back.

    Without `joins` it ends with the segments.
    """
    if run.route.encoding_card is not None:
        own_device(run.device)
    for item in run.steadied:
        if isinstance(item, CopiedPacket):
            assert isinstance(run.sink, VideoSink)  # the decoding thread leaves them out for segments
            with run.clock.busy("encode"):
                run.sink.copy(item)
            continue
        if run.on_frame is not None and isinstance(item, Frame):
            run.on_frame(item.pixels, float(item.pts * run.plan.info.time_base))
        if run.finish is not None and isinstance(item, Frame):
            with run.clock.busy("finish"):
                item = run.finish(item)
        with run.clock.busy("encode"):
            item = _compared(run, item)
            run.sink.write(item)
        run.measurement.see(item)
    with run.clock.busy("encode"):
        run.sink.finish()
    if isinstance(run.sink, VideoSink):
        run.outcome.written = run.sink.written
    elif joins:
        _join(run)


def _compared(run: VideoRun, item: VideoFrame) -> VideoFrame:
    """The source beside the result, if that was asked for."""
    if run.options.compare is None or not isinstance(item, Frame):
        return item
    assert isinstance(item.source, np.ndarray)
    joined = compare(item.source, resized(item.pixels, *run.plan.size), run.options.compare)
    return Frame(joined, item.pts, item.duration)


def _join(run: VideoRun) -> None:
    """The segments and the packets of the source's other streams to the result."""
    assert run.kept is not None
    assert run.temporary is not None
    run.source.container.close()  # it is read once more, and its decoder and its index need memory
    run.progress.stage("joining the segments")

    def check() -> None:
        """It waits at nothing: whether it is to stop."""
        run.workers.check()
        run.check_strict()

    with run.clock.busy("encode"), open_source(run.plan, joining=True) as again:
        result = open_sink(run.plan, again, run.temporary, run.source.damage)
        join_segments(run.kept, again, result, check)
    run.outcome.written = result.written
    run.progress.stage(None)
