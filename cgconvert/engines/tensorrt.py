"""The TensorRT engine: torch-tensorrt's ahead-of-time path, static shapes, its own place in the cache.

The network says its types itself (half-precision convolutions, instance-norm statistics in float32), and
TensorRT is told to keep them ("explicit typing"), so nothing depends on its weak typing, which newer
versions no longer have. Written after
https://docs.pytorch.org/TensorRT/user_guide/runtime_performance/saving_models.html.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from cgconvert.engines.shaped import Runner, ShapedEngine
from cgconvert.host.packages import package_version

PROGRAM = "network.ep"
INSTALL = "pip install 'cgconvert[tensorrt]'"


class TensorRTEngine(ShapedEngine):
    """A generator built by TensorRT for a card; the engine file is good for this card and version only."""

    name: ClassVar[str] = "tensorrt"

    @classmethod
    def precisions(cls, device: torch.device) -> tuple[str, ...]:
        return ("fp32", "fp16") if device.type == "cuda" else ()

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        if device.type != "cuda":
            return 'tensorrt needs an NVIDIA GPU: use `engine="openvino"` or eager on a CPU'
        if precision not in ("fp32", "fp16"):
            return f"tensorrt runs fp16 and fp32 here, not {precision}"
        if importlib.util.find_spec("torch_tensorrt") is None:
            return f"torch-tensorrt is not installed: {INSTALL}"
        return None

    def _parts(self) -> dict[str, Any]:
        names = ("torch-tensorrt", "tensorrt", "tensorrt-cu12", "tensorrt-cu13")
        # Kept with the number of its card, on which it runs wherever it is loaded.
        return {"tensorrt": {name: package_version(name) for name in names}, "card": self.device.index}

    def write(self, folder: Path, shape: Sequence[int]) -> None:
        import torch_tensorrt

        assert self.network is not None
        example = self.example(shape)
        with torch.no_grad():
            program = torch.export.export(self.network, (example,))
        built = torch_tensorrt.dynamo.compile(
            program,
            arg_inputs=[example],
            device=self.device,
            use_explicit_typing=True,
            disable_tf32=self.precision == "fp32",
            # One engine of the whole network, not several with copies between them.
            min_block_size=1,
            truncate_double=True,
        )
        torch_tensorrt.save(
            built, str(folder / PROGRAM), output_format="exported_program", arg_inputs=[example]
        )

    def _load(self, folder: Path) -> Runner:
        import torch_tensorrt

        return torch_tensorrt.load(str(folder / PROGRAM)).module()
