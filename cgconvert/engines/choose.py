"""Chooses the device, the precision and the engine of a job from what was asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cgconvert.engines.base import Engine
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.host.cpu import has_bf16
from cgconvert.models.describe import FOREIGN
from cgconvert.models.loading import Model
from cgconvert.options import PRECISIONS, check_device_name, check_engine_name

CLASSES = {
    "eager": "cgconvert.engines.eager:EagerEngine",
    "compile": "cgconvert.engines.compiled:CompileEngine",
    "tensorrt": "cgconvert.engines.tensorrt:TensorRTEngine",
    "openvino": "cgconvert.engines.openvino:OpenVINOEngine",
}
"""Every engine: where it is, imported when it is asked for, since each needs libraries of its own."""

GPU_PRECISIONS = ("fp16", "fp32")
"""Of an Intel GPU; what it computes in float32 is said to be slow, so `auto` does not look for that."""
AUTO_ENGINES: dict[str, tuple[str, ...]] = {
    "cpu": ("openvino", "eager"),
    "cuda": ("compile", "eager"),
    "mps": ("eager",),
    "xpu": ("eager",),
}
"""What `auto` tries, the fastest first (`docs/engines.md` has the measurements; of mps and xpu there are
none)."""


@dataclass(frozen=True)
class Candidate:
    """One way to run a model: an engine and a precision on a device.

    `plugin` is OpenVINO's name of an Intel GPU ("GPU", "GPU.1"), whose images come from and go to `device`.
    """

    engine: str
    precision: str
    device: torch.device
    plugin: str = ""

    def __str__(self) -> str:
        return f"{self.engine} {self.precision} on {self.plugin.lower() or self.device}"


def engine_class(name: str) -> type[Engine]:
    """The class of an engine by name; its optional library is not loaded yet."""
    module, _, attribute = CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def choose_devices(text: str) -> list[torch.device]:
    """One device as `choose_device`, or several: `cuda:0,1`, `cuda:0,cuda:2`, or `all` CUDA devices.

    `cpu` may be named several times, each for an engine of its own. Raises `UsageError`, `UnavailableError`.
    """
    if text.lower() == "all":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise UnavailableError('no CUDA device is visible for `device="all"`; use `device="cpu"` or auto')
        return [torch.device("cuda", index) for index in range(count)]
    names = [name.strip().lower() for name in text.split(",")]
    if len(names) == 1:
        return [choose_device(text)]
    kind = names[0].partition(":")[0]
    names = [f"{kind}:{name}" if name.isdecimal() else name for name in names]
    if {"auto", "gpu"} & set(names):
        raise UsageError(
            f"device {text!r}: name several devices by their numbers, as in cuda:0,1, or use all"
        )
    devices = [choose_device(name) for name in names]
    if len({device.type for device in devices}) > 1:
        raise UsageError(f"device {text!r}: devices of two kinds do not give the same pictures; use one kind")
    numbers = [device.index for device in devices if device.type == "cuda"]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"device {text!r}: names a card twice")
    return devices


def choose_device(text: str) -> torch.device:
    """One device by name as a device that is there. Raises `UnavailableError`.

    A CUDA device has its number, since libraries take one without for none or for the first. `rocm` is
    `cuda` of a torch that is built for AMD's cards. For an Intel `gpu` it is the CPU, where torch prepares
    what OpenVINO takes to that card. `auto` takes no `mps` or `xpu`, on which nothing of this has been run.
    """
    text = text.strip().lower()
    if text == "gpu":
        return torch.device("cpu")
    if "," in text or text == "all":
        raise UsageError(f"device {text!r}: several devices are for video, dir and image; use one here")
    check_device_name(text)
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text.startswith("rocm"):
        if torch.version.hip is None:
            raise UnavailableError(
                f"no device {text}: this torch is not built for ROCm (AMD's cards need that build of torch); "
                'use `device="cpu"` or auto'
            )
        text = text.replace("rocm", "cuda")
    device = torch.device(text)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UnavailableError(
                f'no device {text}: {count} CUDA devices are visible; use `device="cpu"` or auto'
            )
        if device.index is None:
            return torch.device("cuda", torch.cuda.current_device())
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UnavailableError(
            "no device mps: it is on Apple silicon, with macOS and its build of torch; "
            'use `device="cpu"` or auto'
        )
    elif device.type == "xpu":
        count = torch.xpu.device_count() if torch.xpu.is_available() else 0
        if (device.index or 0) >= count:
            raise UnavailableError(
                f"no device {text}: {count} XPU devices are visible (torch needs its build for Intel); "
                'use `device="cpu"`, gpu (Intel\'s cards by OpenVINO) or auto'
            )
        return torch.device("xpu", device.index or 0)
    return device


def intel_gpu() -> str | None:
    """OpenVINO's name of the first Intel GPU; None without one, or without OpenVINO."""
    if engine_class("openvino").why_not(torch.device("cpu"), "fp32"):
        return None
    from cgconvert.engines.openvino import available_gpus

    return next(iter(available_gpus()), None)


def find_intel_gpu() -> str:
    """OpenVINO's name of the first Intel GPU. Raises `UnavailableError` without one."""
    plugin = intel_gpu()
    if plugin is None:
        raise UnavailableError(
            "no Intel GPU: OpenVINO sees none (it needs pip install 'cgconvert[openvino]' and Intel's "
            'compute driver); use `device="cpu"` or auto'
        )
    return plugin


def choose_precision(text: str, device: torch.device) -> str:
    """`auto` as the fastest precision the device has in hardware; a name as itself, or `UsageError`.

    `auto` is never int8, whose loss can be seen.
    """
    if text == "auto":
        if device.type != "cpu":
            return "fp16"
        return "bf16" if has_bf16() else "fp32"
    if text not in PRECISIONS:
        raise UsageError(f"unknown precision {text!r}: use auto, {', '.join(PRECISIONS)}")
    return text


def candidates(model: Model, device: str, engine: str, precision: str) -> Iterator[Candidate]:
    """What may run the model as asked, the best first; more than one only where something is `auto`.

    Nothing of it has been tried. Raises `UsageError` for unknown names, `UnavailableError` for a device
    that is not there.
    """
    check_engine_name(engine)
    where = choose_device(device)
    if model.card.architecture == "identity":  # exact, or it would not show what the pipeline loses
        chosen = "fp32" if precision == "auto" else choose_precision(precision, where)
        yield Candidate("eager" if engine == "auto" else engine, chosen, where)
        return
    if model.card.architecture in FOREIGN:
        yield from _of_other_programs(model, device, engine, precision, where)
        return
    asked_for_gpu = device.lower() == "gpu"
    if asked_for_gpu and engine not in ("auto", "openvino"):
        raise UsageError(f'only openvino runs on an Intel GPU, not {engine}: use `engine="openvino"` or auto')
    if asked_for_gpu or (device == "auto" and where.type == "cpu" and engine in ("auto", "openvino")):
        yield from _on_intel_gpu(precision, where, asked_for_gpu)
        if asked_for_gpu:
            return
    first = choose_precision(precision, where)
    precisions = dict.fromkeys([first, "fp32"] if precision == "auto" else [first])
    engines = AUTO_ENGINES[where.type] if engine == "auto" else (engine,)
    if precision == "int8" and engine == "auto":
        engines = ("openvino",)
    for chosen in precisions:
        for name in engines:
            yield Candidate(name, chosen, where)


def _of_other_programs(
    model: Model, device: str, engine: str, precision: str, where: torch.device
) -> Iterator[Candidate]:
    """What may run an ONNX graph or a TorchScript program: OpenVINO, or as eager its own runtime in float32.

    Raises `UsageError` for anything else that was asked for.
    """
    name, kind = model.card.name, FOREIGN[model.card.architecture]
    if engine not in ("auto", "openvino", "eager"):
        raise UsageError(
            f"{engine} cannot run {name!r}, which is a file of another program ({kind}): use "
            '`engine="openvino"`, eager or auto'
        )
    if device.lower() == "gpu":
        if engine == "eager":
            raise UsageError('only openvino runs on an Intel GPU: use `engine="openvino"` or auto')
        yield from _on_intel_gpu(precision, where, True)
        return
    if where.type != "cpu":
        if device != "auto":
            raise UsageError(
                f"{name!r} is a file of another program ({kind}), which runs on the processor: use "
                '`device="cpu"`, gpu (Intel) or auto'
            )
        where = torch.device("cpu")
    first = choose_precision(precision, where)
    for chosen in dict.fromkeys([first, "fp32"] if precision == "auto" else [first]):
        if engine in ("auto", "openvino"):
            yield Candidate("openvino", chosen, where)
        if engine in ("auto", "eager") and chosen == "fp32":
            yield Candidate("eager", chosen, where)
    if engine == "eager" and first != "fp32" and precision != "auto":
        raise UsageError(f'eager runs {name!r} ({kind}) in fp32 alone: use `precision="fp32"` or auto')


def _on_intel_gpu(precision: str, host: torch.device, asked: bool) -> Iterator[Candidate]:
    """OpenVINO on an Intel GPU, where there is one and the precision is one of its own.

    Raises `UsageError` or `UnavailableError` if it was asked for.
    """
    chosen = "fp16" if precision == "auto" else precision
    if chosen not in GPU_PRECISIONS or (not asked and chosen == "fp32"):
        if asked:
            raise UsageError(f"an Intel GPU runs {' and '.join(GPU_PRECISIONS)} here, not {precision}")
        return
    plugin = find_intel_gpu() if asked else intel_gpu()
    if plugin is not None:
        yield Candidate("openvino", chosen, host, plugin)


def build(model: Model, candidate: Candidate, calibration: Sequence[np.ndarray] = ()) -> Engine:
    """The engine of a candidate, not yet prepared. Raises `UnavailableError`.

    `calibration` are the pictures (H, W, 3) that int8 learns its value ranges from.
    """
    kind = engine_class(candidate.engine)
    reason = None if candidate.plugin else kind.why_not(candidate.device, candidate.precision)
    if reason:
        raise UnavailableError(reason)
    if candidate.engine == "openvino":
        from cgconvert.engines.openvino import OpenVINOEngine

        plugin = candidate.plugin or "CPU"
        return OpenVINOEngine(model, candidate.device, candidate.precision, plugin, calibration)
    return kind(model, candidate.device, candidate.precision)
