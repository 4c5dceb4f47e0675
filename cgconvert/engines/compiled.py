"""The compile engine: the network as one ahead-of-time compiled library a size, made by torch's inductor.

Padding, normalisation, activation and residual are fused where inductor fuses them. The libraries are kept
in the cache: the second start loads them in a fraction of a second, without tracing anything.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from cgconvert.engines.eager import exact_float32
from cgconvert.engines.shaped import Runner, ShapedEngine
from cgconvert.tensors.dtypes import DTYPES

PACKAGE = "network.pt2"
CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable: where inductor keeps what it makes on the way."""


class CompileEngine(ShapedEngine):
    """A generator compiled by inductor, ahead of time."""

    name: ClassVar[str] = "compile"

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        if precision not in DTYPES:
            return f'compile has no {precision}; use `engine="openvino"`, or `precision="auto"`'
        if device.type == "cpu" and precision == "fp16":
            return 'fp16 is for GPUs: on a CPU use `precision="bf16"`, fp32 or auto'
        compiler = os.environ.get("CXX") or "g++"
        if not (shutil.which(compiler) or shutil.which("clang++")):
            return 'compile needs a C++ compiler: install g++, or use `engine="openvino"` or eager'
        if device.type == "cuda" and importlib.util.find_spec("triton") is None:
            return 'compile needs triton on a GPU: pip install triton, or use `engine="eager"`'
        return None

    def _parts(self) -> dict[str, Any]:
        """On a CPU the number of threads, which a library holds from when it is built."""
        return {"threads": torch.get_num_threads()} if self.device.type == "cpu" else {}

    def write(self, folder: Path, shape: Sequence[int]) -> None:
        import torch._inductor as inductor

        logging.getLogger("torch._inductor").setLevel(logging.ERROR)
        assert self.network is not None
        # Frozen weights can be packed for the processor's own layout; cards have no such layout.
        configs: dict[str, Any] = {"freezing": self.device.type == "cpu"}
        with torch.no_grad(), exact_float32(self.device):
            program = torch.export.export(self.network, (self.example(shape),))
            # In memory first: torch's own writer ends the process where the disk is full.
            package = io.BytesIO()
            inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=configs)
        (folder / PACKAGE).write_bytes(package.getbuffer())

    def _load(self, folder: Path) -> Runner:
        # Inductor makes its cache's folder, in that for temporary files, when it is imported.
        before = os.environ.get(CACHE)
        os.environ.setdefault(CACHE, str(folder))
        try:
            import torch._inductor as inductor
        finally:
            if before is None:
                del os.environ[CACHE]

        logging.getLogger("torch._inductor").setLevel(logging.ERROR)
        on_cuda = self.device.type == "cuda"
        return inductor.aoti_load_package(
            str(folder / PACKAGE),
            # The other way asks a CUDA event whether the library is free, which no graph can record. An
            # engine is used by one thread at a time.
            run_single_threaded=on_cuda,
            device_index=self.device.index if on_cuda else -1,
        )
