"""The TensorRT engine: torch-tensorrt's ahead-of-time path, its own place in the cache.

The network says its types itself (half-precision convolutions, instance-norm statistics in float32), and
TensorRT is told to keep them ("explicit typing"), so nothing depends on its weak typing, which newer
versions no longer have. What is built for any size has an optimisation profile from the smallest to the
largest. Written after
https://docs.pytorch.org/TensorRT/user_guide/runtime_performance/saving_models.html and
https://docs.pytorch.org/TensorRT/user_guide/compilation/dynamic_shapes.html.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from cgconvert.engines.fuse import with_group_norms
from cgconvert.engines.shaped import Runner, ShapedEngine
from cgconvert.host.packages import package_version

PROGRAM = "network.ep"
INSTALL = "pip install 'cgconvert[tensorrt]'"

LONGEST = 2048
"""Pixels: the longest side in the profile for any size. TensorRT takes memory for the largest at once."""
MOST_TOGETHER = 4
"""Pictures in that profile, for the same reason."""


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

    def edges(self) -> tuple[int, int]:
        least, most = super().edges()
        multiple = self.model.card.size_multiple
        return least, max(2 * least, min(most, LONGEST // multiple * multiple))

    def largest_batch(self) -> int:
        return MOST_TOGETHER

    def _profile(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The smallest shape (N, C, H, W), the one to be fastest for, and the largest."""
        count, height, width = shape
        channels, (least, most) = self.model.card.network_channels, self.edges()
        usual = min(count, self.largest_batch()), channels, min(height, most), min(width, most)
        return {
            "min_shape": (1, channels, least, least),
            "opt_shape": usual,
            "max_shape": (self.largest_batch(), channels, most, most),
        }

    def write(self, folder: Path, shape: Sequence[int], any_size: bool = False) -> None:
        import torch_tensorrt

        assert self.network is not None
        network = with_group_norms(self.network)
        if any_size:
            profile = self._profile(shape)
            count, _, height, width = profile["opt_shape"]
            example = self.example((count, height, width))
            inputs, shapes = [torch_tensorrt.Input(**profile, dtype=torch.float32)], self.varied()
        else:
            example = self.example(shape)
            inputs, shapes = [example], None
        with torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes=shapes)
        built = torch_tensorrt.dynamo.compile(
            program,
            arg_inputs=inputs,
            device=self.device,
            use_explicit_typing=True,
            disable_tf32=self.precision == "fp32",
            # One engine of the whole network, not several with copies between them.
            min_block_size=1,
            truncate_double=True,
        )
        more = {"dynamic_shapes": shapes} if any_size else {}
        torch_tensorrt.save(
            built, str(folder / PROGRAM), output_format="exported_program", arg_inputs=[example], **more
        )

    def _load(self, folder: Path) -> Runner:
        import torch_tensorrt

        return torch_tensorrt.load(str(folder / PROGRAM)).module()
