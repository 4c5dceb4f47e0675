"""What torch's ahead-of-time compiler needs of NVIDIA's CUDA toolkit, which the wheels of torch do not bring.

It compiles C++ against `cuda_runtime.h` and links with `-lcuda` (`torch/_inductor/cpp_builder.py`,
`torch/utils/cpp_extension.py`). What `torch.compile` makes of a network needs neither.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path


def cpp_compiler() -> str | None:
    """The C++ compiler that torch takes, None without one."""
    return next(filter(shutil.which, (os.environ.get("CXX") or "g++", "clang++")), None)


def has_c_compiler() -> bool:
    """Whether there is a C compiler for the launchers that triton makes; on Windows triton brings its own."""
    names = (os.environ.get("CC") or "gcc", "clang", "cc")
    return sys.platform == "win32" or any(map(shutil.which, names))


def cuda_home() -> Path | None:
    """The folder of the toolkit, found as torch finds it; None without one."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    compiler = shutil.which("nvcc")
    if named:
        home = Path(named)
    elif compiler:
        home = Path(compiler).parents[1]
    else:
        home = Path("/usr/local/cuda")
    return home if home.is_dir() else None


@cache
def why_not_ahead() -> str | None:
    """Why no library for a card can be compiled ahead of time here; None if it should work.

    Looks at files only. Kept for the life of the process.
    """
    compiler, home = cpp_compiler(), cuda_home()
    if sys.platform != "linux":
        return f"it is tried on Linux only, not on {sys.platform}"
    if compiler is None:
        return "there is no C++ compiler"
    if importlib.util.find_spec("setuptools") is None:
        return "setuptools is not installed, which torch looks for the toolkit with"
    if home is None:
        return "there is no CUDA toolkit (CUDA_HOME)"
    if not (home / "include" / "cuda_runtime.h").is_file():
        return f"the CUDA toolkit in {home} has no headers"
    if not (_stub_of_driver(home) or _linker_finds_driver(compiler)):
        return f"the CUDA toolkit in {home} has no libcuda.so to link with"
    return None


def _stub_of_driver(home: Path) -> bool:
    """Whether the toolkit has the library that stands for the driver's, where torch looks for it."""
    static = (path for name in ("lib64", "lib") for path in (home / name).rglob("libcudart_static.a"))
    return any((path.resolve().parent / "stubs" / "libcuda.so").is_file() for path in static)


def _linker_finds_driver(compiler: str) -> bool:
    """Whether the driver's own library lies where the linker looks anyway."""
    try:
        asked = [compiler, "-print-file-name=libcuda.so"]
        found = Path(subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.strip())
    except (OSError, subprocess.SubprocessError):
        return False
    return found.is_absolute() and found.exists()  # the compiler repeats the name where it finds nothing
