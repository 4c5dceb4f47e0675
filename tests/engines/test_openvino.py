"""OpenVINO's engine: what holds for its runtime alone."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytest.importorskip("openvino")

FORGETS_AND_IS_INTERRUPTED = """
import gc, signal, threading
import numpy as np
import cgconvert

def use():
    model = cgconvert.load_model("photo2monet-fast", device="cpu", engine="openvino")
    model.convert(np.zeros((64, 64, 3), np.uint8))
    model.itself = model

signal.signal(signal.SIGINT, lambda number, frame: print("interrupted"))
gc.disable()
use()
thread = threading.Thread(target=gc.collect)
thread.start()
thread.join()
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals as Unix has them")
def test_signals_arrive_after_another_thread_has_collected_a_model() -> None:
    """Its CPU plugin would take the stack for signal handlers with it, which ended the process."""
    done = subprocess.run([sys.executable, "-c", FORGETS_AND_IS_INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
