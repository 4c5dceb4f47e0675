"""What the processor is. No torch."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


@cache
def _description() -> str:
    """Linux's description of the processors; empty elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def processor_name() -> str:
    """The processor's name, or its architecture where the system does not say it."""
    lines = _description().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Whether it multiplies bfloat16 in hardware; without that bf16 is slower than float32."""
    return "avx512_bf16" in _description() or "amx_bf16" in _description()
