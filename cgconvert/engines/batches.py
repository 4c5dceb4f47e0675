"""How many pictures go through together, and what happens when that was too many: no picture is lost."""

from __future__ import annotations

import numpy as np
import torch

from cgconvert.engines.base import Engine
from cgconvert.errors import CgconvertError
from cgconvert.memory import available_memory
from cgconvert.transforms import padded_size

LIMIT = 64
"""No more pictures than this at once: beyond it nothing gets faster, and the first result comes later."""

ENOUGH_PIXELS = {"cpu": 256 * 256, "cuda": 8 * 1024 * 1024}
"""Pixels in a batch from which a device is busy; more only take memory and delay the first result."""

SHARE = 0.7
"""Share of the free memory that a batch may take; the rest is for others and for fragmentation."""

PROBE_EDGE = {"cpu": 64, "cuda": 256}
"""Of the picture that shows what a pixel needs. On a CPU layers are weighed, which any size tells."""

MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "std::bad")


class OutOfMemoryError(CgconvertError):
    """Not even one picture fits."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was short, on whatever device and in whatever library."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in MEMORY_WORDS)


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on a device now, what torch keeps for reuse included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free_bytes = available_memory()
    return 2 * 2**30 if free_bytes is None else free_bytes


def bytes_per_pixel(engine: Engine) -> float:
    """Memory that an engine needs for each pixel of a batch, measured with one small picture.

    On CUDA the allocator's peak is read; elsewhere the outputs of the layers are weighed, of which the two
    largest neighbours live at the same time, and as much again as work space.
    """
    edge = PROBE_EDGE[engine.device.type]
    height, width = padded_size(edge, edge, engine.model.card)
    images = torch.zeros(1, engine.model.card.in_channels, height, width, device=engine.device)
    if engine.device.type == "cuda":
        engine(images)  # the first call also loads libraries and chooses algorithms
        torch.cuda.synchronize(engine.device)
        before = torch.cuda.memory_allocated(engine.device)
        torch.cuda.reset_peak_memory_stats(engine.device)
        engine(images)
        torch.cuda.synchronize(engine.device)
        return max(torch.cuda.max_memory_allocated(engine.device) - before, images.nbytes) / (height * width)
    return 4 * _largest_layer(engine, images) / (height * width)


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


def choose_batch(engine: Engine, height: int, width: int) -> int:
    """Pictures of this size to send together: enough to keep the device busy, as far as memory allows."""
    rows, columns = padded_size(height, width, engine.model.card)
    wanted = max(engine.streams, -(-ENOUGH_PIXELS[engine.device.type] // (rows * columns)))
    if wanted == 1:
        return 1
    return max(1, min(wanted, LIMIT, pixels_that_fit(engine) // (rows * columns)))


def convert_resilient(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    """`engine.convert`, in parts of at most `engine.batch` pictures; out of memory halves it and goes on.

    Every picture comes back, in order. Raises `OutOfMemoryError` if a single one does not fit.
    """
    done: list[np.ndarray] = []
    start = 0
    while start < len(pixels):
        part = pixels[start : start + max(1, engine.batch)]
        try:
            done.append(engine.convert(part))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            short = True
        else:
            short = False
            start += len(part)
        # Outside the except clause, whose traceback keeps the tensors of the failed attempt alive.
        if short:
            _halve(engine, part)
    return done[0] if len(done) == 1 else np.concatenate(done)


def _halve(engine: Engine, part: np.ndarray) -> None:
    """Let the engine take half as many pictures from now on. Raises `OutOfMemoryError` at one."""
    height, width = part.shape[1:3]
    if len(part) == 1:
        raise OutOfMemoryError(
            f"not enough memory on {engine.device} for one picture of {width}x{height}: use a smaller "
            "--work-size, --device cpu, or close what else uses the memory"
        )
    engine.batch = len(part) // 2
    note = f"out of memory with {len(part)} pictures of {width}x{height}: {engine.batch} from then on"
    engine.notes.append(note)
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()
