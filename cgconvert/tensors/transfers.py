"""Copies between host memory and the network's device, beside the computing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack


class Arrival(Protocol):
    """Tensors on their way to host memory."""

    is_here: bool
    """Whether they are there already, so that nothing is gained by waiting later."""

    def wait(self) -> list[Tensor]:
        """The tensors, once they are there."""
        ...


class Transfers(Protocol):
    """How a device exchanges tensors with the host. All methods return at once, only `Arrival.wait` waits."""

    def gather(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Arrays of one shape and type, uint8 or uint16, as one tensor in host memory to upload from."""
        ...

    def upload(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Begin to copy tensors of `gather` to the device; what is computed with them afterwards waits."""
        ...

    def download(self, parts: Sequence[Tensor], stay: bool = False) -> Arrival:
        """Begin to copy what has been computed to the host, or only to wait for it where it is to `stay`."""
        ...


class Arrived:
    """Tensors that are there already."""

    is_here = True

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = list(parts)

    def wait(self) -> list[Tensor]:
        """The tensors."""
        return self.parts


class HostTransfers:
    """Where the network runs on the processor there is nothing to copy and nothing to wait for."""

    def gather(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """In ordinary memory; a single array is not copied."""
        return torch.from_numpy(
            np.ascontiguousarray(arrays[0])[None] if len(arrays) == 1 else np.stack(arrays)
        )

    def upload(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The tensors themselves."""
        return list(parts)

    def download(self, parts: Sequence[Tensor], stay: bool = False) -> Arrived:
        """The tensors themselves."""
        return Arrived(parts)


class PlainTransfers(HostTransfers):
    """Copies that wait until they are done, for devices whose streams nobody has tried here."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def upload(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Copies on the device."""
        return [part.to(self.device) for part in parts]

    def download(self, parts: Sequence[Tensor], stay: bool = False) -> Arrived:
        """Copies in host memory, or the tensors themselves where they are to `stay`."""
        return Arrived(parts if stay else [part.cpu() for part in parts])


class CudaArrival:
    """Tensors behind an event of a CUDA stream."""

    is_here = False

    def __init__(self, parts: Sequence[Tensor], event: torch.cuda.Event) -> None:
        self.parts, self.event = list(parts), event

    def wait(self) -> list[Tensor]:
        """The tensors; the thread sleeps until the stream has come past the event."""
        self.event.synchronize()
        return self.parts


class CudaTransfers:
    """Uploads and downloads in a stream each, beside the current stream, in which the network runs.

    Host memory is pinned: without that no copy runs beside anything. torch keeps pinned memory for reuse, and
    reuses it only when the copies that it took part in are over; so each batch has its own, for as long as
    an encoder reads it, and yet nothing is allocated after the first batches.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.up = torch.cuda.Stream(device)
        self.down = torch.cuda.Stream(device)

    def gather(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """In a pinned buffer."""
        dtype = torch.uint8 if arrays[0].dtype == np.uint8 else torch.uint16
        buffer = self._pinned((len(arrays), *arrays[0].shape), dtype)
        view = buffer.numpy()
        for index, array in enumerate(arrays):
            np.copyto(view[index], array)
        return buffer

    def _pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def upload(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Copies in the upload stream, which the current stream then waits for."""
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.up):
            there = [part.to(self.device, non_blocking=True) for part in parts]
        computing.wait_stream(self.up)
        for part in there:
            part.record_stream(computing)  # its memory is the upload stream's, which must not reuse it yet
        return there

    def download(self, parts: Sequence[Tensor], stay: bool = False) -> CudaArrival:
        """Copies in the download stream, which first waits for what the current stream has been given."""
        self.down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.down):
            here = list(parts)
            if not stay:
                here = [self._pinned(part.shape, part.dtype).copy_(part, non_blocking=True) for part in parts]
            event = torch.cuda.Event(blocking=True)
            event.record(self.down)
        for part in parts:
            part.record_stream(self.down)
        return CudaArrival(here, event)


def transfers_for(device: torch.device) -> Transfers:
    """The transfers of a device."""
    if device.type == "cuda":
        return CudaTransfers(device)
    return HostTransfers() if device.type == "cpu" else PlainTransfers(device)


def taken_over(plane: Any) -> Tensor:
    """A copy of a plane that a decoder has left on a card, so that the decoder can use its memory again.

    The capsule is asked for itself: torch would ask for it with a stream to wait for, which PyAV does not
    take. NVDEC writes in the default stream; so does this copy and the network, which keeps their order.
    """
    return from_dlpack(plane.__dlpack__()).clone()


def own_device(device: torch.device) -> None:
    """Make a CUDA device the calling thread's own: FFmpeg takes the context that is current in a thread.

    Where it is the current device already, `set_device` does nothing at all; waiting for it does.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.synchronize()
