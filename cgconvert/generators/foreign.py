"""Networks of other programs as generators: the file that holds them is run by its own runtime.

The file itself is the one buffer of such a generator, so that it lies in a model file as weights do.
"""

from __future__ import annotations

import io
import threading
import warnings
from abc import abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.errors import ModelError, UnavailableError, first_line

Values = Literal["-1..1", "0..1", "0..255"]
Order = Literal["nchw", "nhwc"]
NumberType = Literal["float32", "float16", "uint8"]

SPANS: dict[str, tuple[float, float]] = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}
"""The values that pictures have in such a network, from black to white."""

INSTALL = "pip install 'cgconvert[onnx]'"
COMMON = 256
"""Bytes of the largest value inside for each pixel of the picture, if it is not known: 64 channels."""


class ForeignGenerator(nn.Module):
    """A network from a file. It takes and returns images (N, C, H, W) in [-1, 1], one at a time.

    `input_values` and `output_values` are what the network itself takes and returns, `input_order` and
    `output_order` whether channels come before or after the places, `number_type` the type of its input, and
    `output` which of its outputs is the picture. `pixel_bytes` are those of its largest inner value for
    each pixel.
    """

    file: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        file_bytes: int = 1,
        input_values: Values = "-1..1",
        output_values: Values = "-1..1",
        input_order: Order = "nchw",
        output_order: Order = "nchw",
        number_type: NumberType = "float32",
        output: int = 0,
        pixel_bytes: int = COMMON,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.input_span, self.output_span = SPANS[input_values], SPANS[output_values]
        self.input_order, self.output_order = input_order, output_order
        self.number_type, self.output, self.pixel_bytes = number_type, output, pixel_bytes
        self.register_buffer("file", torch.zeros(file_bytes, dtype=torch.uint8))
        self._program: Any = None
        self._lock = threading.Lock()

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._picture(image) for image in images.split(1)])

    def _picture(self, image: Tensor) -> Tensor:
        low, high = self.input_span
        values = image.float()
        if (low, high) != (-1.0, 1.0):
            values = (values + 1) * ((high - low) / 2) + low
        if self.number_type == "uint8":
            values = values.round().clamp(0, 255)
        if self.input_order == "nhwc":
            values = values.permute(0, 2, 3, 1)
        found = self.run(values.to(getattr(torch, self.number_type)).contiguous()).float()
        if self.output_order == "nhwc":
            found = found.permute(0, 3, 1, 2)
        low, high = self.output_span
        return found if (low, high) == (-1.0, 1.0) else (found - low) * (2 / (high - low)) - 1

    @abstractmethod
    def run(self, values: Tensor) -> Tensor:
        """What the network itself makes of one picture, in its own order and values."""

    @abstractmethod
    def _opened(self, device: torch.device) -> Any:
        """The file's content as its runtime has it. Raises `ModelError`."""

    def program(self, device: torch.device) -> Any:
        """The same, opened once for the device that it is first asked for on."""
        with self._lock:  # pictures of a batch come in threads
            if self._program is None:
                self._program = self._opened(device)
            return self._program

    def content(self) -> bytes:
        """The bytes of the file."""
        return self.file.cpu().numpy().tobytes()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_program": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.Lock()


class OnnxGenerator(ForeignGenerator):
    """An ONNX graph, run by ONNX Runtime on the processor. The graph is data; no code in it is run."""

    def run(self, values: Tensor) -> Tensor:
        session = self.program(values.device)
        try:
            found = session.run(None, {session.get_inputs()[0].name: values.numpy()})[self.output]
        except Exception as error:  # ONNX Runtime's errors are of a dozen types of its own
            raise RuntimeError(f"ONNX Runtime: {first_line(error, 300)}") from error
        return torch.from_numpy(np.ascontiguousarray(found))

    def _opened(self, device: torch.device) -> Any:
        return open_onnx(self.content())


class TorchScriptGenerator(ForeignGenerator):
    """A TorchScript program, run by torch. It is code: `cgconvert.models.trust` decides who may make one."""

    def run(self, values: Tensor) -> Tensor:
        found = self.program(values.device)(values)
        if isinstance(found, tuple | list):
            found = found[self.output]
        if not isinstance(found, Tensor):
            raise RuntimeError(f"the program returns a {type(found).__name__}, not a tensor")
        return found

    def _opened(self, device: torch.device) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that TorchScript is deprecated
                return torch.jit.load(io.BytesIO(self.content()), map_location=device).eval()
        except Exception as error:  # any kind, since the bytes drive the reader
            raise ModelError(f"torch cannot read the TorchScript program ({first_line(error)})") from error


def open_onnx(content: bytes) -> Any:
    """An ONNX Runtime session of a graph. Raises `UnavailableError` and `ModelError`."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(f"models from ONNX files need onnx and onnxruntime: {INSTALL}") from error
    try:
        graph = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own
        raise ModelError("its ONNX graph is damaged or cut short") from error
    outside = outside_file(graph)
    if outside is not None:
        raise ModelError(
            f"its ONNX graph keeps weights in another file ({outside!r:.80}): save it as one file"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest picture
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a dozen types
        raise ModelError(f"ONNX Runtime cannot run its graph ({first_line(error)})") from error


def outside_file(graph: Any) -> str | None:
    """The name of another file that an ONNX model reads tensors from, wherever in it; None without one.

    Such a name can lead anywhere on the disk, so nothing is read by it.
    """
    pending = [graph]
    while pending:
        message = pending.pop()
        if message.DESCRIPTOR.name == "TensorProto" and message.data_location == message.EXTERNAL:
            names = [entry.value for entry in message.external_data if entry.key == "location"]
            return names[0] if names else ""
        for field, value in message.ListFields():
            if field.message_type is not None:
                pending += [value] if hasattr(value, "ListFields") else value
    return None
