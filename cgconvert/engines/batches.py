"""How many pictures go through together, and what happens when that was too many: no picture is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from cgconvert.engines.base import Engine
from cgconvert.engines.job import EngineJob
from cgconvert.errors import CgconvertError
from cgconvert.generators import ForeignGenerator
from cgconvert.host.cpu import has_bf16
from cgconvert.host.memory import available_memory
from cgconvert.progress import Progress
from cgconvert.tensors.images import padded_size

LIMIT = 64
"""No more pictures than this at once: beyond it nothing gets faster, and the first result comes later."""

ENOUGH_PIXELS = {"cpu": 256 * 256, "cuda": 8 * 1024 * 1024, "mps": 1024 * 1024, "xpu": 1024 * 1024}
"""Pixels in a batch from which a device is busy; more only take memory and delay the first result. Those of
mps and xpu are guesses."""

SHARE = 0.7
"""Share of the free memory that a batch may take; the rest is for others and for fragmentation."""

PROBE_EDGE = {"cpu": 64, "cuda": 256, "mps": 64, "xpu": 64}
"""Of the picture that shows what a pixel needs. Where layers are weighed any size tells it."""

PICTURE_BYTES = 60
"""Of a pixel on a CPU, outside of the layers: what is stored, images before and after, padded copies."""

MEMORY_WORDS = (
    "out of memory",
    "outofmemory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "std::bad",
    "alloc_failed",
    "failed to allocate",
)
"""Of errors that say that memory was short."""

VAGUE_WORDS = ("unable to find an engine", "api call failed at", "internal_error", "not_initialized")
"""Of errors that libraries raise where memory was short, and for other reasons too: cuDNN where no algorithm
gets its work space, AOTInductor for whatever a call met, and cuDNN and cuBLAS for their handles."""

NEARLY_FULL = 0.02
"""Share of a card's memory: less that is free is hardly any."""

COMMON_POOL = (0, 0)
"""torch's name for the memory that does not belong to a graph."""

BATCH_BYTES = 128 * 2**20
"""That the frames of a batch may store on either side of the network on a card: 10 of a 4K video. Their
network may see them much smaller, and would have more of them together."""

CONVERSION_BYTES = 32
"""Of a card's memory for each byte that a frame stores, while it is converted from and to YUV in float32:
at most 12 bytes of RGB a pixel, twice that on the way, and 12 of YUV, for 1.5 bytes stored."""

Result = TypeVar("Result")


REMEDY = 'use a smaller `work_size`, `device="cpu"`, or close what else uses the memory'


class OutOfMemoryError(CgconvertError):
    """Not even one picture fits. `problem` says what does not, without what to do."""

    def __init__(self, problem: str, remedy: str = REMEDY) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was short, on whatever device and in whatever library.

    What led to the error counts too: recording a CUDA graph that runs short fails once more as it ends.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(cause, RuntimeError):
            text = str(cause).lower()
            if any(word in text for word in MEMORY_WORDS):
                return True
            if any(word in text for word in VAGUE_WORDS) and _cards_were_short():
                return True
        cause = cause.__cause__ or cause.__context__
    return False


def _cards_were_short() -> bool:
    """Whether torch has ever failed to allocate on a card, or hardly anything is free on one."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return False
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        if torch.cuda.memory_stats(index).get("num_ooms", 0) or free < NEARLY_FULL * total:
            return True
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
    release_cached()
    return None


def release_cached() -> None:
    """Let torch give back to a GPU what it keeps of its memory for reuse."""
    if torch.cuda.is_available():
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    elif torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated on a device now, what torch keeps for reuse included.

    What the graphs on a card keep for themselves is not: only their own replays use it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + sum(
            segment["total_size"] - segment["active_size"]
            for segment in torch.cuda.memory_snapshot()
            if segment["device"] == device.index and tuple(segment["segment_pool_id"]) == COMMON_POOL
        )
    if device.type == "xpu":
        free, _ = torch.xpu.mem_get_info(device)
        return free + torch.xpu.memory_reserved(device) - torch.xpu.memory_allocated(device)
    free_bytes = available_memory()  # an Apple GPU shares it
    return 2 * 2**30 if free_bytes is None else free_bytes


def bytes_per_pixel(job: EngineJob) -> float:
    """Memory that the engine needs for each pixel of a batch, measured once, with one small picture.

    On CUDA the allocator's peak is read. The network runs layer by layer for it: an engine that is built for
    a size would be built for the small one, and the replay of a CUDA graph allocates next to nothing,
    whatever the graph holds.

    Elsewhere the outputs of the layers are weighed, on the CPU: `PICTURE_BYTES`, and four times the largest
    output, which stands for it, its neighbour and as much again as work space. Compared with the growth of
    the process at 768x768 and 512x512, eager float32 and OpenVINO: photo2monet 144 and 137 (156 by the rule),
    ResNet with 64 channels 783 and 622 (1084), U-Net with 64 channels 129 and 672 (572).
    """
    if job.pixel_bytes is None:
        engine = job.engine
        edge = PROBE_EDGE[engine.device.type]
        height, width = padded_size(edge, edge, engine.model.card)
        images = torch.zeros(1, engine.model.card.network_channels, height, width, device=engine.device)
        if engine.device.type == "cuda":
            needed = max(_peak(partial(engine.layer_by_layer, images), engine.device), images.nbytes)
        else:
            needed = PICTURE_BYTES * height * width + 4 * _largest_layer(engine, images)
            if engine.precision == "bf16" and engine.device.type == "cpu" and not has_bf16():
                needed *= 2  # where bf16 is emulated, float32 copies of everything lie beside it
        job.pixel_bytes = needed / (height * width)
    return job.pixel_bytes


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
    """Bytes of the largest layer output of the plain network, in its float32.

    Padding does not count: for the small picture that is looked at its border is a large part.
    """
    sizes = [images.nbytes]

    def weigh(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not type(module).__name__.endswith("Pad2d"):
            sizes.append(output.nbytes)

    generator = engine.model.generator
    if isinstance(generator, ForeignGenerator):
        return generator.pixel_bytes * images.shape[2] * images.shape[3]
    hooks = [module.register_forward_hook(weigh) for module in generator.modules()]
    try:
        with torch.inference_mode():
            generator(images.cpu())
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


def pixels_that_fit(job: EngineJob) -> int:
    """Padded pixels of a batch that the free memory of the engine's device has room for now."""
    return int(SHARE * free_memory(job.engine.device) / bytes_per_pixel(job))


def why_it_cannot_fit(job: EngineJob, count: int, height: int, width: int) -> str | None:
    """Why a batch of this padded size is too much for the main memory that is free; None if it is not.

    Looked at before the work begins: a card says when its memory is short, but a system that has none left
    ends the program. What has gone through once is not looked at again, since the process keeps its memory.
    What goes through in tiles is never too much.
    """
    pixels = count * height * width
    if job.engine.device.type != "cpu" or pixels <= job.proven_pixels or job.is_tiled(height, width):
        return None
    free, need = available_memory(), bytes_per_pixel(job) * pixels
    if free is None or need <= free:
        return None
    gib = 2**30
    return f"{width}x{height} pixels need about {need / gib:.1f} GiB of memory, {free / gib:.1f} are free"


def tile_from_now_on(job: EngineJob, height: int, width: int) -> bool:
    """Let pictures of this padded size, of which one does not fit, go through in tiles, or in smaller ones.

    Returns whether they can.
    """
    if job.tiling is None:
        return False
    job.engine.forget(height, width)
    release_cached()
    per_pixel = if_it_fits(partial(bytes_per_pixel, job))
    if per_pixel is None or not job.tiling.take(height, width, per_pixel, free_memory(job.engine.device)):
        return False
    job.batch = 1
    return True


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


def choose_batch(job: EngineJob, height: int, width: int, stored: int = 0) -> int:
    """Pictures of this size to send together: enough to keep the device busy, as far as memory allows.

    `stored` are the bytes of each picture as it comes or goes, whichever is more; 0: as the network sees it.
    """
    height, width = padded_size(height, width, job.engine.model.card)
    enough = busy_pixels(job.engine, height, width)
    if enough <= height * width:
        return 1
    fits, limit = pixels_that_fit(job), LIMIT
    if stored and job.engine.device.type == "cuda":
        pixels = height * width
        fits = int(fits * pixels / (pixels + CONVERSION_BYTES * stored / bytes_per_pixel(job)))
        limit = max(1, min(LIMIT, BATCH_BYTES // stored))
    return scaled_batch(height, width, enough, fits, limit)


def prepare_what_fits(job: EngineJob, height: int, width: int, progress: Progress) -> None:
    """Prepare the engine for this padded size and the job's batch; a batch that is too much is halved.

    Nothing is built for a size whose pictures go through in tiles, from the start or since one does not fit.
    Raises `OutOfMemoryError` if not even a batch of one can be prepared, `UnavailableError` as `prepare`.
    """
    engine = job.engine

    def prepare() -> bool:
        engine.prepare(height, width, job.batch, progress)
        return True

    while not job.is_tiled(height, width) and not if_it_fits(prepare):
        halve(job, job.batch, height, width)
    if engine.full and not engine.built_for(height, width) and not engine.takes_any_size:
        job.note(f"no more sizes are built for: the others run layer by layer, without {engine.name}")


def halve(job: EngineJob, count: int, height: int, width: int) -> None:
    """Let half of `count` pictures of a size go together from now on, and drop what is built for more.

    One that does not fit goes through in tiles. Raises `OutOfMemoryError` where that cannot be.
    """
    engine, size = job.engine, f"{width}x{height}"
    if count == 1:
        if tile_from_now_on(job, height, width):
            return
        raise OutOfMemoryError(f"not enough memory on {engine.device} for one picture of {size}")
    job.batch = count // 2
    job.note(f"out of memory with {count} pictures of {size}: {job.batch} from then on")
    engine.forget(*padded_size(height, width, engine.model.card), above=job.batch)
    release_cached()
