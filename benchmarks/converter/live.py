"""Live pictures: how far behind the source the result is, what is dropped, and whether memory stays flat.

    python benchmarks/converter/live.py CLIP [--seconds 60] [--models photo2monet-fast,photo2monet]

`cgconvert live` plays the clip, reduced to 640x360, in real time again and again, and sends the result as an
MPEG transport stream to this script, which receives it. For each model, at the size that it chooses by
itself: the report of the run, and the memory of its process every five seconds. Writes results/live.json.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import av

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save

SIZE = 640, 360
MEMORY_EVERY = 5.0


def reduced(clip: Path, target: Path) -> float:
    """Write the clip's frames at the size. Returns their rate."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        stream: Any = container.add_stream("libx264", rate=source.streams.video[0].average_rate)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in source.decode(video=0):
            container.mux(stream.encode(frame.reformat(*SIZE, format="yuv420p")))
        container.mux(stream.encode(None))
        return float(source.streams.video[0].average_rate or 25)


def memory_of(process: int) -> float:
    """MiB that a process holds now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def receive(connection: socket.socket, received: list[int]) -> None:
    """Take what is sent, and count its bytes."""
    accepted, _ = connection.accept()
    with accepted:
        while data := accepted.recv(1 << 16):
            received.append(len(data))


def run(clip: Path, model: str, seconds: float) -> dict[str, Any]:
    """One run of the command."""
    connection = socket.create_server(("127.0.0.1", 0))
    received: list[int] = []
    threading.Thread(target=receive, args=(connection, received), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "cgconvert", "live", clip, "--loop", "--seconds", seconds]
        command += ["-o", f"tcp://127.0.0.1:{connection.getsockname()[1]}", "-m", model, "--quiet"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        process = subprocess.Popen([*map(str, command), "--report", str(report)], env=environment)
        memory, began = [], time.monotonic()
        while process.poll() is None:
            time.sleep(MEMORY_EVERY)
            if process.poll() is None:
                memory.append(
                    {"second": round(time.monotonic() - began), "mib": round(memory_of(process.pid), 1)}
                )
        if process.returncode:
            raise SystemExit(f"the command ended with {process.returncode}")
        told = json.loads(report.read_text())
        told["source"], told["output"] = Path(told["source"]).name, told["output"].partition(":")[0]
    return {"received_bytes": sum(received), "memory": memory, "report": told}


def main() -> None:
    parser = option_parser(__doc__, "live")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--models", default="photo2monet-fast,photo2monet")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        rate = reduced(arguments.clip, clip)
        models = {name: run(clip, name, arguments.seconds) for name in arguments.models.split(",")}
    figures = {"clip": arguments.clip.name, "size": SIZE, "rate": rate, "seconds": arguments.seconds}
    print(json.dumps(models, indent=1))
    print(save(arguments.name or "live", {**figures, "models": models}))


if __name__ == "__main__":
    main()
