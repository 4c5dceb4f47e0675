"""The compile engine: the network as torch's inductor compiles it, for one size at a time.

Padding, normalisation, activation and residual are fused where inductor fuses them. What is compiled is kept
in the cache. With a compiler, and for cards with NVIDIA's toolkit, it is a library made ahead of time, which
the second start loads in a fraction of a second, without tracing anything. Without the toolkit it is what
`torch.compile` keeps: the second start traces the network again, and finds its kernels compiled.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from cgconvert.engines import toolkit
from cgconvert.engines.building import COMPILERS_FOLDERS
from cgconvert.engines.eager import exact_float32
from cgconvert.engines.on_card import measured_forms, seconds_on, with_forms, with_shifted_sums
from cgconvert.engines.shaped import Runner, ShapedEngine
from cgconvert.engines.through import Passage, Through, graph_of
from cgconvert.models.loading import Model
from cgconvert.progress import Progress
from cgconvert.tensors.dtypes import DTYPES
from cgconvert.tensors.images import padded_size

PACKAGE = "network.pt2"
CACHES, RECIPE = "compiled.bin", "recipe.json"
MOST_TRACES = 64
"""Sizes that torch traces one function for. Beyond its own 8 it gives up; a process may have many engines."""


class CompileEngine(ShapedEngine):
    """A generator compiled by inductor."""

    name: ClassVar[str] = "compile"

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        super().__init__(model, device, precision)
        self.planes: Callable[..., Any] | None = None
        """What `through_planes` gave last. A card may still be at work on it when others drop it."""
        self.why_traced: str | None = None
        """Why nothing is compiled ahead of time; None if it is."""
        if device.type == "cuda":
            self.why_traced = toolkit.why_not_ahead()
        elif device.type != "cpu":
            self.why_traced = f"ahead of time is for CPUs and CUDA devices, not for {device.type}"

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        if precision not in DTYPES:
            return f'compile has no {precision}; use `engine="openvino"`, or `precision="auto"`'
        if device.type == "cpu" and precision == "fp16":
            return 'fp16 is for GPUs: on a CPU use `precision="bf16"`, fp32 or auto'
        if device.type == "cpu" and toolkit.cpp_compiler() is None:
            return 'compile needs a C++ compiler: install g++, or use `engine="openvino"` or eager'
        if device.type in ("cuda", "xpu") and importlib.util.find_spec("triton") is None:
            return 'compile needs triton on a GPU: pip install triton, or use `engine="eager"`'
        if device.type in ("cuda", "xpu") and not toolkit.has_c_compiler():
            return 'compile needs a C compiler: install gcc, or use `engine="eager"`'
        return None

    def _parts(self) -> dict[str, Any]:
        """On a CPU the number of threads, which a library holds from when it is built."""
        if self.device.type == "cpu":
            return {"threads": torch.get_num_threads()}
        return {"ahead": self.why_traced is None}

    def describe(self) -> dict[str, Any]:
        told = super().describe()
        if self.why_traced is not None:
            told["traced_at_each_start"] = self.why_traced
        return told

    def write(
        self,
        folder: Path,
        shape: Sequence[int],
        any_size: bool = False,
        passage: Mapping[str, Any] | None = None,
    ) -> None:
        """As `ShapedEngine.write`, or with `passage` (`Passage.to_dict`) for batches of shape[0] frames."""
        _quieten()
        asked = {"shape": list(shape), "any_size": any_size, "passage": passage}
        recipe = {**asked, "forms": self._forms(shape, passage) if self.changes_layers else {}}
        if self.why_traced is not None:
            self._write_traced(folder, recipe)
            return
        if self.device.type == "cuda" and (home := toolkit.cuda_home()) is not None:
            os.environ["CUDA_HOME"] = str(home)  # without it torch finds the toolkit, but no libcuda.so in it
        import torch._inductor as inductor

        # Frozen weights can be packed for the processor's own layout; cards have no such layout.
        configs: dict[str, Any] = {"freezing": self.device.type == "cpu"}
        with torch.no_grad(), exact_float32(self.device):
            program = self._program(recipe)
            # In memory first: torch's own writer ends the process where the disk is full.
            package = io.BytesIO()
            inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=configs)
        (folder / PACKAGE).write_bytes(package.getbuffer())

    @property
    def changes_layers(self) -> bool:
        """Whether layers take other forms for the device (`cgconvert.engines.on_card`)."""
        return self.device.type == "cuda"

    def _forms(self, shape: Sequence[int], passage: Mapping[str, Any] | None) -> dict[str, str]:
        """The forms of layers that are faster on this card, measured on one picture of the size."""
        assert self.network is not None
        height, width = shape[1:] if passage is None else self._seen_size(passage)
        with torch.inference_mode(), exact_float32(self.device):
            return measured_forms(self.network, self.example((1, height, width)), seconds_on(self.device))

    def _seen_size(self, passage: Mapping[str, Any]) -> tuple[int, int]:
        width, height = Passage.from_dict(passage).target.work_size
        return padded_size(height, width, self.model.card)

    def _changed(self, recipe: Mapping[str, Any]) -> nn.Module:
        """The network as it is compiled."""
        assert self.network is not None
        if not self.changes_layers:
            return self.network
        return with_shifted_sums(with_forms(self.network, recipe["forms"]))

    def _program(self, recipe: Mapping[str, Any]) -> torch.export.ExportedProgram:
        """The operations that are compiled: those of the network, or of all from planes to planes."""
        network, shape, passage = self._changed(recipe), recipe["shape"], recipe["passage"]
        if passage is not None:
            way = Passage.from_dict(passage)
            return graph_of(Through(network, self.model.card, way), way.examples(shape[0], self.device))
        shapes = self.varied() if recipe["any_size"] else None
        return torch.export.export(network, (self.example(shape),), dynamic_shapes=shapes)

    def through_planes(self, passage: Passage, batch: int, progress: Progress) -> Callable[..., Any]:
        """What makes planes of planes, as `Through` does, for exactly `batch` frames.

        It is built, or comes from the cache. What was there for other frames is dropped. Raises
        `UnavailableError` if it cannot be built, and as torch does where memory is short.
        """
        self.forget_planes()
        way = passage.to_dict()
        (width, height), (rows, columns) = passage.target.size, passage.size
        self.planes = self.made(
            f"planes of {columns}x{rows} to planes of {width}x{height}, batch {batch}",
            {"shape": [batch], "passage": way},
            {"shape": [batch], "passage": way},
            progress,
            lambda: passage.examples(batch, self.device),
        )
        return self.planes

    def forget_planes(self) -> None:
        """Drop what makes planes of planes, with its memory."""
        self._wait()
        self.planes = None

    def close(self) -> None:
        super().close()
        self.planes = None

    def _load(self, folder: Path) -> Runner:
        _quieten()
        if self.why_traced is not None:
            return self._load_traced(folder)
        on_cuda = self.device.type == "cuda"
        # Inductor makes its cache's folder when it is imported, and a library in it when a package is loaded,
        # by which it learns what the processor can do. Both would stay among the temporary files.
        with _caches_in(folder):
            import torch._inductor as inductor

            return inductor.aoti_load_package(
                str(folder / PACKAGE),
                # The other way asks a CUDA event whether the library is free, which no graph can record. An
                # engine is used by one thread at a time.
                run_single_threaded=on_cuda,
                device_index=self.device.index if on_cuda else -1,
            )

    def _write_traced(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self._trace(recipe)
        kept = torch.compiler.save_cache_artifacts()
        if kept is None:
            raise RuntimeError("torch has kept nothing of what it compiled")
        (folder / CACHES).write_bytes(kept[0])
        (folder / RECIPE).write_text(json.dumps(recipe))

    def _load_traced(self, folder: Path) -> Runner:
        """Run once, since only then is everything in memory that was compiled."""
        place = tempfile.mkdtemp(prefix="cgconvert-engine-")
        try:
            with _caches_in(place):
                import torch._inductor.config as inductor

                torch.compiler.load_cache_artifacts((folder / CACHES).read_bytes())
                with inductor.patch(compile_threads=1):  # in this process alone
                    return self._trace(json.loads((folder / RECIPE).read_text()))
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _trace(self, recipe: Mapping[str, Any]) -> Callable[..., Any]:
        """What a recipe of `write` is about, compiled, after its first run."""
        import torch._dynamo.config as tracing

        if recipe["passage"] is None:
            network, examples = self._changed(recipe), [self.example(recipe["shape"])]
        else:
            # torch.compile does not trace what makes the filters; the graph holds them as they are.
            network = self._program(recipe).module()
            examples = Passage.from_dict(recipe["passage"]).examples(recipe["shape"][0], self.device)
        compiled = torch.compile(network, dynamic=recipe["any_size"], fullgraph=True)
        limit = tracing.patch(recompile_limit=MOST_TRACES)
        with limit, torch.inference_mode(), exact_float32(self.device):
            compiled(*examples)
        return compiled


def _quieten() -> None:
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)


@contextmanager
def _caches_in(folder: Path | str) -> Iterator[None]:
    """Let compilers keep what they make in a folder."""
    before = {name: os.environ.get(name) for name in COMPILERS_FOLDERS}
    os.environ.update(dict.fromkeys(COMPILERS_FOLDERS, str(folder)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
