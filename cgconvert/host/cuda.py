"""Counts NVIDIA GPUs by asking the driver, because importing torch takes seconds."""

from __future__ import annotations

import ctypes
import sys

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def count_cuda_devices() -> int:
    """Count the CUDA devices that the driver shows to this process, which honours `CUDA_VISIBLE_DEVICES`."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
