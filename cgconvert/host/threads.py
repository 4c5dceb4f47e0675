"""How the threads of the arithmetic wait; set before torch is loaded, so nothing here imports it."""

from __future__ import annotations

import os
import sys


def wait_without_spinning() -> bool:
    """Let OpenMP threads sleep instead of spinning between two layers; whether that still takes effect.

    A video has a decoder and an encoder beside the network, and a spinning thread takes their core away.
    OpenMP reads the variable once, when torch loads it. A value that the user has set is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return "torch" not in sys.modules
