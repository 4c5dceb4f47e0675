"""An engine whose building goes as it is told, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cgconvert.engines.eager import EagerEngine
from cgconvert.errors import UnavailableError
from cgconvert.models.loading import Model


class Written(EagerEngine):
    """`write` does what `how` says; what it was given it writes down."""

    def __init__(
        self, model: Model, device: torch.device, precision: str, calibration: Sequence[np.ndarray] = ()
    ) -> None:
        super().__init__(model, device, precision)
        self.calibration = calibration

    def write(self, folder: Path, how: str) -> None:
        print("a library says something", flush=True)
        if how == "short":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory")
        if how == "refused":
            raise UnavailableError("not with this network")
        if how == "broken":
            raise ValueError("no such operator\nand more lines")
        if how == "abort":
            os.abort()
        if how == "long":
            compiler = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (folder / "pids").write_text(f"{os.getpid()} {compiler.pid}")
            time.sleep(600)
        total = sum(float(weight.double().sum()) for weight in self.model.generator.parameters())
        shapes = [picture.shape for picture in self.calibration]
        told = [total, torch.get_num_threads(), shapes, self.precision, tempfile.gettempdir()]
        (folder / "written").write_text(repr(told))
