"""Compare cgconvert with the loops that people usually write: same weights, same files, whole processes.

    python benchmarks/converter/against_peers.py dir [--pictures-from FOLDER]
    python benchmarks/converter/against_peers.py video --clip FILE

For a folder the peer is the test script of the usual CycleGAN repository: PIL reads a picture, the network
runs in eager float32 with batch 1, PIL writes a PNG. For a video it is OpenCV's VideoCapture, ONNX Runtime
and OpenCV's VideoWriter with the same weights exported to ONNX.

The peer and each of our variants run in turn, and the median of the ratios counts. The folder needs Pillow
(`pip install pillow`) and the video `cgconvert[onnx]`. cgconvert itself needs neither.
Writes results/against_peers_dir.json or results/against_peers_video.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import RESNET, load, option_parser, save

VARIANTS = {
    "auto": [],
    "eager bf16": ["--engine", "eager", "--precision", "bf16"],
    "openvino bf16": ["--engine", "openvino", "--precision", "bf16"],
    "openvino int8": ["--engine", "openvino", "--precision", "int8"],
}


def peer_dir(model: str, source: Path, target: Path) -> None:
    """The plain test loop: read, normalise, one picture through the eager float32 network, write PNG."""
    import numpy as np
    import torch
    from PIL import Image

    from cgconvert.engines.fuse import with_plain_norms
    from cgconvert.models.loading import load_model

    network = with_plain_norms(load_model(model).generator)  # torch's own layers, as in the original
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        array = np.asarray(Image.open(path).convert("RGB"))
        tensor = torch.from_numpy(array.copy()).permute(2, 0, 1).float().div(255)
        tensor = ((tensor - 0.5) / 0.5)[None]
        with torch.no_grad():
            result = network(tensor)[0]
        array = (result.permute(1, 2, 0).numpy() + 1) / 2 * 255
        Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(target / f"{path.stem}.png")


def peer_video(onnx: Path, source: Path, target: Path) -> None:
    """The plain video loop: OpenCV reads, ONNX Runtime translates, OpenCV writes; sound is lost."""
    import cv2
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    capture = cv2.VideoCapture(str(source))
    rate = capture.get(cv2.CAP_PROP_FPS)
    width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    while True:
        there, frame = capture.read()
        if not there:
            break
        rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        images = rgb.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        (result,) = session.run(None, {"images": images})
        pixels = ((result[0].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
        writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    writer.release()


def timed(*command: str) -> dict[str, float]:
    """Wall and processor seconds of one process, from its start to its end. Raises if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 3), "cpu_seconds": round(spent, 3)}


def compare(
    peer: list[str], ours: dict[str, list[str]], pairs: int, clean: Any, reports: dict[str, Path]
) -> dict[str, Any]:
    """Alternate the peer with each of ours. Ratios above 1 mean that ours is faster."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ours}
    for _ in range(pairs):
        clean()
        base = timed(*peer)
        print(f"peer {base}", flush=True)
        for name, command in ours.items():
            clean()
            try:
                mine = timed(*command)
            except subprocess.CalledProcessError as error:  # int8 may fall below its bound, and says so
                rows[name].append({"problem": error.stderr.strip()[-400:]})
                print(f"{name}: {error.stderr.strip()[-400:]}", flush=True)
                continue
            report = json.loads(reports[name].read_text()) if name in reports else {}
            row = {
                "peer": base,
                "ours": mine,
                "ratio": round(base["seconds"] / mine["seconds"], 3),
                "cpu_ratio": round(base["cpu_seconds"] / mine["cpu_seconds"], 3),
                "engine": report.get("engine"),
                "stage_seconds": report.get("stage_seconds"),
            }
            rows[name].append(row)
            print(f"{name} {mine} ratio {row['ratio']} cpu {row['cpu_ratio']}", flush=True)
    medians = {
        name: {key: statistics.median(row[key] for row in found) for key in ("ratio", "cpu_ratio")}
        for name, rowset in rows.items()
        if (found := [row for row in rowset if "ratio" in row])
    }
    return {"median": medians, "pairs": rows, "load_after": round(os.getloadavg()[0], 2)}


def draw_pictures(folder: Path, count: int, edge: int) -> None:
    """Pictures of one size as PNG, drawn."""
    import cv2

    from cgconvert.doctor.measure import example_pixels

    folder.mkdir()
    for index, picture in enumerate(example_pixels(count, edge, edge)):
        cv2.imwrite(str(folder / f"{index:04}.png"), picture)


def take_pictures(source: Path, folder: Path, count: int, edge: int) -> None:
    """The middle squares of real pictures as PNG of edge x edge."""
    import cv2

    folder.mkdir()
    for index, path in enumerate(sorted(source.iterdir())[:count]):
        picture = cv2.imread(str(path))
        assert picture is not None, path
        height, width = picture.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = cv2.resize(picture[top : top + side, left : left + side], (edge, edge), interpolation=3)
        cv2.imwrite(str(folder / f"{index:04}.png"), square)


def our_commands(
    command: list[str], arguments: argparse.Namespace, folder: Path
) -> tuple[dict[str, list[str]], dict[str, Path]]:
    """The command of each variant asked for, and where its report will be."""
    names = [name for name in VARIANTS if name in arguments.variants.split(",")]
    reports = {name: folder / f"{name.replace(' ', '_')}.json" for name in names}
    return {name: [*command, *VARIANTS[name], "--report", str(reports[name])] for name in names}, reports


def run_dir(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The folder comparison, with the ResNet-9 unless another model is named."""
    from cgconvert.models.files import write_model

    model = arguments.model
    if model == RESNET:
        made = load(RESNET)
        model = str(folder / f"{RESNET}.safetensors")
        write_model(Path(model), made.card, made.generator.state_dict())
    source, target = folder / "in", folder / "out"
    if arguments.pictures_from:
        take_pictures(arguments.pictures_from, source, arguments.pictures, 256)
    else:
        draw_pictures(source, arguments.pictures, 256)

    def clean() -> None:
        subprocess.run(["rm", "-rf", str(target)], check=True)

    me = [sys.executable, __file__]
    command = [sys.executable, "-m", "cgconvert", "dir", str(source), "-o", str(target), "-m", model]
    ours, reports = our_commands([*command, "--quiet", "--overwrite"], arguments, folder)
    peer = [*me, "peer-dir", model, str(source), str(target)]
    clean()
    figures = compare(peer, ours, arguments.pairs, clean, reports)
    return {"model": arguments.model, "pictures": len(list(source.iterdir())), "size": "256x256", **figures}


def run_video(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The video comparison."""
    onnx, target = folder / "network.onnx", folder / "out.mp4"
    export = [sys.executable, "-m", "cgconvert", "models", "export", arguments.model, "--format", "onnx"]
    subprocess.run([*export, "-o", str(onnx)], check=True, capture_output=True)

    def clean() -> None:
        target.unlink(missing_ok=True)

    command = [sys.executable, "-m", "cgconvert", "video", str(arguments.clip), "-o", str(target)]
    command += ["-m", arguments.model, "--quiet", "--overwrite"]
    command += ["--preset", arguments.preset, "--work-size", "1x"]
    ours, reports = our_commands(command, arguments, folder)
    peer = [sys.executable, __file__, "peer-video", str(onnx), str(arguments.clip), str(target)]
    figures = compare(peer, ours, arguments.pairs, clean, reports)
    return {"model": arguments.model, "clip": arguments.clip.name, "preset": arguments.preset, **figures}


def main() -> None:
    if len(sys.argv) == 5 and sys.argv[1] in ("peer-dir", "peer-video"):
        if sys.argv[1] == "peer-dir":
            peer_dir(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        else:
            peer_video(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
        return
    parser = option_parser(__doc__, "against_peers_WHAT")
    parser.add_argument("what", choices=["dir", "video"])
    parser.add_argument("--model", help="Default: resnet9-ngf64 for dir, photo2monet for video.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--pictures-from", type=Path, help="A folder of pictures; drawn ones otherwise.")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--preset", default="veryfast", help="Of x264; the peer's mpeg4 has no such thing.")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    arguments = parser.parse_args()
    arguments.model = arguments.model or ("resnet9-ngf64" if arguments.what == "dir" else "photo2monet")
    if arguments.what == "video" and arguments.clip is None:
        parser.error("video needs --clip")
    os.environ["OMP_WAIT_POLICY"] = "passive"
    with tempfile.TemporaryDirectory() as text:
        figures = (run_dir if arguments.what == "dir" else run_video)(arguments, Path(text))
    print(save(arguments.name or f"against_peers_{arguments.what}", figures))


if __name__ == "__main__":
    main()
