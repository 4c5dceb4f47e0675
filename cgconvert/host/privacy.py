"""Nothing leaves this machine: the telemetry of libraries, switched off before they are imported."""

from __future__ import annotations

import os
import sys

OFF = {
    # ONNX Runtime from 1.29 on sends a description of every session that is created, on Linux too. It asks
    # for one of these two names, depending on its version, when it is imported.
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_TELEMETRY_DISABLED": "1",
}
"""Environment variables that stop telemetry; processes that this one starts inherit them."""

ABSENT = ("openvino_telemetry",)
"""Packages that do nothing but send. Their users, OpenVINO and NNCF, have a stub for when they are absent.

With the package OpenVINO writes `~/intel` as soon as it is imported, and sends what was converted and how.
"""


def refuse_telemetry() -> None:
    """Switch off the telemetry of every library that could be imported after this."""
    os.environ.update(OFF)
    for name in ABSENT:
        # None makes Python raise ModuleNotFoundError. What somebody else has imported already stays.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
