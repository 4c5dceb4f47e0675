"""Building in a process of its own: compilers and quantisers take minutes and cannot be stopped from within.

The process can be ended at any moment, with the compilers that it has started. It takes what it needs from a
folder and leaves everything there, its temporary files included. Where a library ends the whole process, as
torch's archive writer does on a full disk, only the build has failed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cgconvert.errors import CgconvertError, UnavailableError, first_line
from cgconvert.host.channels import check_worker
from cgconvert.models.files import write_model
from cgconvert.models.loading import load_model
from cgconvert.tensors.transfers import own_device

if TYPE_CHECKING:
    from cgconvert.engines.base import Engine

LOOK = 0.05
"""Seconds between two looks at whether the process has ended, or the run is to."""

ORDER, ANSWER, LOG, MODEL, CALIBRATION = (
    "order.json",
    "answer.json",
    "log",
    "model.safetensors",
    "samples.npz",
)
COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from cgconvert.engines.building import carry_out; carry_out(sys.argv[2])"
)
COMPILERS_FOLDERS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Environment variables that say where torch's and triton's compilers keep what they have made."""
OWN_FOLDERS = ("TMPDIR", *COMPILERS_FOLDERS)
"""Environment variables that say where libraries put what they write on the way."""


class BuildError(RuntimeError):
    """A library could not build; the text is its own, its traceback a note."""


def build_apart(engine: Engine, folder: Path, calibration: Sequence[np.ndarray] = (), **what: Any) -> None:
    """Let `write(folder, **what)` of an engine of the same kind run in another process.

    `calibration` are pictures for an engine that takes them; `what` are JSON values. Raises `Aborted` when
    the run of the calling worker is over, `CgconvertError` as `write` does, `torch.OutOfMemoryError` where
    memory was short, `BuildError` for what libraries raise, and `OSError`.
    """
    place = folder / "order"
    place.mkdir()
    try:
        card = engine.model.card
        write_model(place / MODEL, card, engine.model.generator.state_dict())
        if calibration:
            np.savez(place / CALIBRATION, *calibration)
        order = {
            "kind": f"{type(engine).__module__}:{type(engine).__qualname__}",
            "device": str(engine.device),
            "precision": engine.precision,
            "threads": torch.get_num_threads(),
            "folder": str(folder),
            "what": what,
        }
        (place / ORDER).write_text(json.dumps(order))
        with _running(place) as process:
            while process.poll() is None:
                check_worker()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)
        _raise_what_went_wrong(place, process.returncode)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _running(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process for an order; however the block ends, it ends too, with all that it has started."""
    temporary = {name: str(place) for name in OWN_FOLDERS}
    with (place / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, json.dumps(sys.path), str(place)],
            # Its end says that we have ended, however that came about.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **temporary},
            # A group of its own: Ctrl-C is ours to hear, and the group can be ended as a whole.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end_group(process.pid)  # also where it has ended: what it had started may still run
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _end_group(group: int) -> None:
    if sys.platform == "win32":
        os.kill(group, signal.SIGTERM)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _raise_what_went_wrong(place: Path, code: int) -> None:
    try:
        answer: Mapping[str, str] = json.loads((place / ANSWER).read_text())
    except (OSError, ValueError):
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        lines = (place / LOG).read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise BuildError(f"the process that builds it ended by {name}: {lines[-1]:.200}") from None
    if answer["outcome"] == "short":
        raise torch.OutOfMemoryError(answer["text"])
    if answer["outcome"] == "refused":
        raise UnavailableError(answer["text"])
    if answer["outcome"] == "failed":
        error = BuildError(answer["text"])
        error.add_note(answer["trace"])
        raise error


def carry_out(place: str) -> None:
    """The process: do what the order in a folder says."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    fulfil(Path(place))


def fulfil(folder: Path) -> None:
    """Do what the order in a folder says, and write down how it went."""
    order = json.loads((folder / ORDER).read_text())
    torch.set_num_threads(order["threads"])
    answer = {"outcome": "done"}
    try:
        module, _, name = order["kind"].partition(":")
        kind = getattr(importlib.import_module(module), name)
        model = load_model(folder / MODEL)
        more = {}
        if (folder / CALIBRATION).exists():
            with np.load(folder / CALIBRATION) as arrays:
                more["calibration"] = [arrays[key] for key in arrays.files]
        device = torch.device(order["device"])
        own_device(device)
        engine = kind(model, device, order["precision"], **more)
        engine.write(Path(order["folder"]), **order["what"])
    except CgconvertError as error:
        answer = {"outcome": "refused", "text": str(error)}
    except Exception as error:  # compilers fail in many ways
        from cgconvert.engines.batches import is_out_of_memory

        short = is_out_of_memory(error)
        answer = {
            "outcome": "short" if short else "failed",
            "text": first_line(error, 500),
            "trace": traceback.format_exc(),
        }
    (folder / ANSWER).write_text(json.dumps(answer))


def _end_with_parent() -> None:
    """End when the process that gave the order has ended, and with it the other end of our input."""
    sys.stdin.buffer.read()
    _end_group(os.getpgrp() if sys.platform != "win32" else os.getpid())
