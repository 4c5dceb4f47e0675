"""How many pictures go through together, and what happens when that was too many: no picture is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from cgconvert.engines.base import Engine
from cgconvert.errors import CgconvertError
from cgconvert.host.memory import available_memory
from cgconvert.tensors.images import padded_size

LIMIT = 64
"""No more pictures than this at once: beyond it nothing gets faster, and the first result comes later."""

ENOUGH_PIXELS = {"cpu": 256 * 256, "cuda": 8 * 1024 * 1024}
"""Pixels in a batch from which a device is busy; more only take memory and delay the first result."""

SHARE = 0.7
"""Share of the free memory that a batch may take; the rest is for others and for fragmentation."""

PROBE_EDGE = {"cpu": 64, "cuda": 256}
"""Of the picture that shows what a pixel needs. On a CPU layers are weighed, which any size tells."""

MEMORY_WORDS = (
    "out of memory",
    "outofmemory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "std::bad",
)

Result = TypeVar("Result")


class OutOfMemoryError(CgconvertError):
    """Not even one picture fits."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was short, on whatever device and in whatever library.

    What led to the error counts too: recording a CUDA graph that runs short fails once more as it ends.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(cause, RuntimeError) and any(word in str(cause).lower() for word in MEMORY_WORDS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def if_it_fits(work: Callable[[], Result]) -> Result | None:
    """What `work` returns, or None if memory was short.

    The caller goes on outside the except clause, whose traceback keeps the failed attempt's tensors alive.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on a device now, what torch keeps for reuse included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free_bytes = available_memory()
    return 2 * 2**30 if free_bytes is None else free_bytes


def bytes_per_pixel(engine: Engine) -> float:
    """Memory that an engine needs for each pixel of a batch, measured once, with one small picture.

    On CUDA the allocator's peak is read; elsewhere the outputs of the layers are weighed, of which the two
    largest neighbours live at the same time, and as much again as work space. The network runs layer by
    layer for it: an engine that is built for a size would be built for the small one, and the replay of a
    CUDA graph allocates next to nothing, whatever the graph holds.
    """
    if engine.pixel_bytes is None:
        edge = PROBE_EDGE[engine.device.type]
        height, width = padded_size(edge, edge, engine.model.card)
        images = torch.zeros(1, engine.model.card.network_channels, height, width, device=engine.device)
        if engine.device.type == "cuda":
            needed = max(_peak(partial(engine.layer_by_layer, images), engine.device), images.nbytes)
        else:
            needed = 4 * _largest_layer(engine, images)
        engine.pixel_bytes = needed / (height * width)
    return engine.pixel_bytes


def _peak(work: Callable[[], object], device: torch.device) -> int:
    """Bytes of a CUDA device that work takes at its peak, on top of what is taken."""
    work()  # the first call also loads libraries and chooses algorithms
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _largest_layer(engine: Engine, images: torch.Tensor) -> int:
    """Bytes of the largest layer output of the plain network, in its float32."""
    sizes = [images.nbytes]

    def weigh(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            sizes.append(output.nbytes)

    generator = engine.model.generator
    hooks = [module.register_forward_hook(weigh) for module in generator.modules()]
    try:
        with torch.inference_mode():
            generator(images.cpu())
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


def pixels_that_fit(engine: Engine) -> int:
    """Padded pixels of a batch that the free memory of the engine's device has room for now."""
    return int(SHARE * free_memory(engine.device) / bytes_per_pixel(engine))


def scaled_batch(height: int, width: int, enough: int, most: int, limit: int = LIMIT) -> int:
    """How many pictures of this padded size go through together: `limit` at most, one at least.

    From `enough` pixels on the device is busy; `most` pixels fit into its memory. The one rule for videos,
    folders and engines built ahead: another batch is another engine in the cache.
    """
    pixels = height * width
    return max(1, min(limit, -(-enough // pixels), most // pixels))


def busy_pixels(engine: Engine, height: int, width: int) -> int:
    """Pixels in a batch of pictures of this padded size from which the engine's device is busy."""
    return max(ENOUGH_PIXELS[engine.device.type], engine.streams * height * width)


def choose_batch(engine: Engine, height: int, width: int) -> int:
    """Pictures of this size to send together: enough to keep the device busy, as far as memory allows."""
    height, width = padded_size(height, width, engine.model.card)
    enough = busy_pixels(engine, height, width)
    if enough <= height * width:
        return 1
    return scaled_batch(height, width, enough, pixels_that_fit(engine))


def prepare_what_fits(engine: Engine, height: int, width: int) -> None:
    """`engine.prepare` for this padded size and `engine.batch`; out of memory halves the batch.

    Raises `OutOfMemoryError` if not even a batch of one can be prepared, `UnavailableError` as `prepare`.
    """

    def prepare() -> bool:
        engine.prepare(height, width, engine.batch)
        return True

    while not if_it_fits(prepare):
        halve(engine, engine.batch, height, width)


def convert_resilient(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    """`engine.convert`, in parts of at most `engine.batch` pictures; out of memory halves it and goes on.

    Every picture comes back, in order. Raises `OutOfMemoryError` if a single one does not fit.
    """
    done: list[np.ndarray] = []
    start = 0
    while start < len(pixels):
        part = pixels[start : start + max(1, engine.batch)]
        converted = if_it_fits(partial(engine.convert, part))
        if converted is None:
            halve(engine, len(part), *part.shape[1:3])
            continue
        done.append(converted)
        start += len(part)
    return done[0] if len(done) == 1 else np.concatenate(done)


def halve(engine: Engine, count: int, height: int, width: int, what: str = "picture") -> None:
    """Let the engine take half of `count` pictures of a size from now on, and drop what is built for more.

    Raises `OutOfMemoryError` at one.
    """
    if count == 1:
        raise OutOfMemoryError(
            f"not enough memory on {engine.device} for one {what} of {width}x{height}: use a smaller "
            '`work_size`, `device="cpu"`, or close what else uses the memory'
        )
    engine.batch = count // 2
    size = f"{width}x{height}"
    engine.notes.append(f"out of memory with {count} {what}s of {size}: {engine.batch} from then on")
    engine.forget(*padded_size(height, width, engine.model.card), above=engine.batch)
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()
