"""The OpenVINO engine: bf16, float32 and int8 on CPUs, float32 and fp16 on Intel GPUs.

The network is converted from torch with free height, width and batch, so that one engine takes every size;
on a CPU that costs no speed. What is kept in the cache is OpenVINO's own format; int8 models are quantised
with NNCF (`cgconvert.engines.quantise`).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.engines.base import Engine
from cgconvert.engines.building import build_apart
from cgconvert.engines.cache import cache_is_on, engines_folder, get_or_build
from cgconvert.engines.fuse import operate, with_plain_norms
from cgconvert.engines.keys import engine_parts, pixels_sha256
from cgconvert.engines.openvino_foreign import convert_foreign
from cgconvert.engines.streams import count_streams
from cgconvert.errors import UnavailableError
from cgconvert.generators import ForeignGenerator
from cgconvert.host.cpu import has_bf16
from cgconvert.host.interrupts import Aborted, Breakable
from cgconvert.host.packages import package_version
from cgconvert.models.loading import Model
from cgconvert.progress import Progress, Silent
from cgconvert.tensors.images import padded_size, pixels_to_images

INSTALL = "pip install 'cgconvert[openvino]'"
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
IR = "network.xml"


def is_installed(name: str) -> bool:
    """Whether a package could be imported; it is not."""
    return importlib.util.find_spec(name) is not None


@cache
def _core() -> Any:
    """OpenVINO's entry point, one for the process.

    Its CPU plugin gives the thread that loads it a stack for signal handlers (sigaltstack), and unmaps that
    stack when the last core goes. If that happens in another thread, as in a garbage collection, the next
    signal ends the process by a segmentation fault.
    """
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"ENABLE_MMAP": False})  # a built network's folder may go while it is in use
    return core


def available_gpus() -> list[str]:
    """OpenVINO's names of the Intel GPUs that it can use, in its order."""
    return [name for name in _core().available_devices if name.startswith("GPU")]


class OpenVINOEngine(Engine):
    """A generator in OpenVINO: compiled for single pictures, or with streams for batches.

    With streams each core works on a picture of its own: as fast on an idle machine, and twice as fast
    where others use it too, since no layer waits for the core that was taken away.
    """

    name: ClassVar[str] = "openvino"
    builds: ClassVar[bool] = True

    @classmethod
    def precisions(cls, device: torch.device) -> tuple[str, ...]:
        return ("fp32", "bf16", "int8") if device.type == "cpu" else ()

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        if not is_installed("openvino"):
            return f"openvino is not installed: {INSTALL}"
        if device.type != "cpu":
            return 'openvino runs on CPUs and Intel GPUs: use `device="cpu"`, or another engine'
        if precision == "int8" and not is_installed("nncf"):
            return f"int8 needs nncf to calibrate the network: {INSTALL}"
        if precision == "fp16":
            return 'fp16 is for GPUs: on a CPU use `precision="bf16"`, fp32 or auto'
        return None

    def __init__(
        self,
        model: Model,
        device: torch.device,
        precision: str,
        plugin: str = "CPU",
        calibration: Sequence[np.ndarray] = (),
    ) -> None:
        """`calibration` are the pictures (H, W, 3), uint8 or uint16, that int8 learns its value ranges from.

        Raises `UnavailableError` for int8 without pictures.
        """
        super().__init__(model, device, precision)
        if precision == "int8" and not calibration:
            raise UnavailableError("int8 needs pictures to calibrate the network on, and there are none")
        self.plugin = plugin
        self.streams = count_streams(device)
        self.calibration = list(calibration)
        self.network: Any = None
        self.single: Any = None
        self.queue: Any = None
        self.closed = False

    def prepare(self, height: int, width: int, batch: int, progress: Progress | None = None) -> None:
        """Convert the network or take it from the cache, and compile it; the size does not matter."""
        assert not self.closed, "the engine is closed"
        if self.network is None:
            note = (progress or Silent()).note
            if self.calibration:
                note(f"int8 is calibrated on {len(self.calibration)} pictures")
            about = f"{self.model.card.name}, {self.precision}, any size"
            self.network = get_or_build(self._parts(), self._build, self._load, about, note)
        if batch > 1 and self.queue is None:
            self.queue = _create_queue(self._compile("THROUGHPUT"))
        elif batch == 1 and self.queue is None and self.single is None:
            self.single = self._compile("LATENCY").create_infer_request()

    def __call__(self, images: Tensor) -> Tensor:
        self.prepare(images.shape[2], images.shape[3], len(images))
        array = images.contiguous().numpy()
        requests = [self.single] if self.queue is None else list(self.queue)

        def cancel() -> None:
            for request in requests:
                request.cancel()

        try:
            with Breakable(cancel):
                return torch.from_numpy(self._infer(array))
        except RuntimeError as error:
            if "was canceled" in str(error):  # OpenVINO has no error of its own for that
                raise Aborted from None
            raise

    def _infer(self, array: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W) through the one request, or side by side through the queue's."""
        if self.queue is None:
            result = self.single.infer([array], share_inputs=True, share_outputs=True)[0]
            return result.copy()
        card = self.model.card
        output = np.empty((len(array), card.out_channels, *array.shape[2:]), np.float32)

        def keep(request: Any, index: int) -> None:
            output[index] = request.get_output_tensor().data[0]

        self.queue.set_callback(keep)
        try:
            for index in range(len(array)):
                self.queue.start_async([array[index : index + 1]], index)
        finally:
            self.queue.wait_all()  # whatever happens, nobody may write into `output` afterwards
        return output

    def build_function(
        self, network: nn.Module, terms: Sequence[Tensor]
    ) -> Callable[[Tensor, *tuple[Tensor, ...]], Tensor] | None:
        import openvino

        card = self.model.card
        height, width = padded_size(2 * card.size_minimum, 2 * card.size_minimum, card)
        images = torch.zeros(2, card.network_channels, height, width)
        with warnings.catch_warnings():  # as in `_convert`
            warnings.simplefilter("ignore")
            converted = openvino.convert_model(network.eval(), example_input=(images, *terms))
        shapes = [[-1, card.network_channels, -1, -1], *(list(term.shape) for term in terms)]
        converted.reshape(dict(zip(converted.inputs, shapes, strict=True)))
        compiled = self._compile("LATENCY", converted)
        request = compiled.create_infer_request()

        def run(images: Tensor, *values: Tensor) -> Tensor:
            arrays = [value.contiguous().numpy() for value in (images, *values)]
            with Breakable():
                return torch.from_numpy(request.infer(arrays, share_inputs=True)[0].copy())

        return run

    def describe(self) -> dict[str, Any]:
        told = super().describe()
        told["device"] = self.plugin.lower()
        if self.queue is not None:
            told["streams"] = len(self.queue)
        if self.calibration:
            told["calibrated_on"] = len(self.calibration)
            told["calibration"] = pixels_sha256(self.calibration)[:16]
        return told

    def close(self) -> None:
        # In this order: a request that outlives its network brings the process down.
        self.queue = None
        self.single = None
        self.network = None
        self.calibration = []
        self.closed = True

    def _parts(self) -> dict[str, Any]:
        """The cache key. Float networks are kept in float32; the precision is chosen when they compile."""
        quantised = self.precision == "int8"
        versions = {name: package_version(name) for name in ("openvino", "nncf")[: 1 + quantised]}
        more: dict[str, Any] = {"openvino": versions}
        if quantised:
            more["calibration_sha256"] = pixels_sha256(self.calibration)
        return engine_parts(self.model, self.name, self.device, "int8" if quantised else "fp32", **more)

    def _build(self, folder: Path) -> None:
        """Have the network written: at once, or for int8, which takes long, in a process of its own."""
        if self.precision == "int8":
            build_apart(self, folder, self.calibration)
        else:
            with Breakable():
                self.write(folder)

    def write(self, folder: Path) -> None:
        """Convert the network, quantise it for int8, and write it into a folder."""
        import openvino

        network = _convert(self.model)
        if self.precision == "int8":
            from cgconvert.engines.quantise import quantise

            network = quantise(network, self._calibration_images())
        openvino.save_model(network, folder / IR, compress_to_fp16=False)

    def _load(self, folder: Path) -> Any:
        return _core().read_model(folder / IR)

    def _calibration_images(self) -> Sequence[np.ndarray]:
        images = []
        for picture in self.calibration:
            image, _ = pixels_to_images(picture[None], self.model.card, torch.device("cpu"))
            images.append(image.contiguous().numpy())
        return images

    def _compile(self, hint: str, network: Any = None) -> Any:
        """A network ready to run; None: the engine's own."""
        settings: dict[str, str] = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": self._arithmetic()}
        if hint == "THROUGHPUT" and self.plugin == "CPU":
            settings["NUM_STREAMS"] = str(self.streams)
        if self.plugin.startswith("GPU") and cache_is_on():
            settings["CACHE_DIR"] = str(engines_folder() / "openvino-gpu")
        try:
            return _core().compile_model(network or self.network, self.plugin, settings)
        except RuntimeError as error:
            if self.plugin == "CPU":
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UnavailableError(
                f'openvino cannot use {self.plugin.lower()} ({lines[-1].strip():.200}): use `device="cpu"`'
            ) from error

    def _arithmetic(self) -> str:
        """What layers that are not int8 compute in: bf16 where the CPU has it."""
        if self.precision == "int8":
            return "bf16" if has_bf16() else "f32"
        return HINTS[self.precision]


def _create_queue(compiled: Any) -> Any:
    import openvino

    return openvino.AsyncInferQueue(compiled)


def _convert(model: Model) -> Any:
    """The generator as an OpenVINO network with free batch, height and width."""
    import openvino

    if isinstance(model.generator, ForeignGenerator):
        return convert_foreign(model, model.generator)
    # Written as itself the norm becomes OpenVINO's one fused operation; as a group norm it does not.
    generator = with_plain_norms(operate(model.generator))
    card = model.card
    channels = card.network_channels
    # Tracing keeps sizes of its example where a layer asks for them, so the smallest accepted one is
    # taken twice over, which no layer can take for a constant 1.
    height, width = padded_size(2 * card.size_minimum, 2 * card.size_minimum, card)
    example = torch.zeros(2, channels, height, width)
    with warnings.catch_warnings():  # about tracing, which is what is meant here
        warnings.simplefilter("ignore")
        network = openvino.convert_model(generator, example_input=example)
    network.reshape([-1, channels, -1, -1])
    return network
