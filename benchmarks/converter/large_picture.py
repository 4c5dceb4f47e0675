"""Measure a picture that is larger than the memory: peak memory, seconds by stage, what tile sizes change.

    python benchmarks/converter/large_picture.py [PHOTO] [--edge 20000] [--tiles auto] [--model NAME]

A photograph (or noise) is repeated to a square TIFF of `--edge` pixels, with a slope of light over it. Each
of `--tiles` is a run of `cgconvert image --work-size 1x --tile ...` in a process of its own, whose peak of
memory is the system's count. The results of several runs are compared pixel by pixel. For networks without
instance norms, crops of 1000 pixels that lie across tiles are compared with what the plain float32 network
makes of them and their surroundings in one piece. With `--folder`, files stay there, and runs that are
finished are not repeated. Needs the extra `large`. Writes results/large_picture.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyvips

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save


def draw(photo: Path | None, edge: int, path: Path) -> None:
    """The source; no two parts of it are alike."""
    if photo is None:
        picture = pyvips.Image.gaussnoise(1000, 1000, mean=128, sigma=50, seed=1).gaussblur(2)
        picture = picture.bandjoin([picture.flip("horizontal"), picture.flip("vertical")])
    else:
        picture = pyvips.Image.new_from_file(str(photo)).colourspace("srgb")[0:3].resize(4)
    picture = picture.replicate(-(-edge // picture.width), -(-edge // picture.height)).crop(0, 0, edge, edge)
    places = pyvips.Image.xyz(edge, edge)
    picture = picture * (0.5 + 0.5 * places[0] / edge) + 20 * places[1] / edge
    picture.cast("uchar").copy(interpretation="srgb").tiffsave(
        str(path), tile=True, compression="lzw", predictor="horizontal"
    )


def convert(source: Path, tile: str, model: str, folder: Path) -> dict[str, Any]:
    """One run: its report's figures and the peak of its memory."""
    kept, report = folder / f"run-{tile}.json", folder / "report.json"
    if kept.exists():
        return json.loads(kept.read_text())
    command = [sys.executable, "-m", "cgconvert", "image", str(source), "-o", str(folder / f"out-{tile}.tif")]
    command += ["-m", model, "--work-size", "1x", "--tile", tile, "--overwrite", "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--report", str(report)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the run with tiles of {tile} failed")
    told = json.loads(report.read_text())
    figures = {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_gib": round(usage.ru_maxrss * 1024 / 2**30, 2),
        "stage_seconds": told["stage_seconds"],
        "engine": told["engine"],
    }
    kept.write_text(json.dumps(figures))
    return figures


def crops_difference(model: str, source: Path, result: Path) -> int | None:
    """The largest difference of crops from the untiled network, in levels; None for networks with norms."""
    import torch

    from cgconvert.engines.tiles.stages import cut_into_stages
    from cgconvert.models.loading import load_model
    from cgconvert.tensors.images import Crop, images_to_pixels, tile_to_images

    loaded = load_model(model)
    card = loaded.card
    stages = cut_into_stages(
        loaded.generator, card.network_channels, card.size_multiple, card.size_minimum
    ).stages
    if len(stages) > 1:
        return None
    around, edge, largest = stages[0].reach, 1000, 0
    pictures = [pyvips.Image.new_from_file(str(path), access="random") for path in (source, result)]
    end = pictures[0].width - edge - around
    for left, top in ((around, around), (end // 2, end // 3), (end // 7, end), (end, end // 5)):
        left, top = ((place - around) // 4 * 4 + around for place in (left, top))
        seen = pictures[0].crop(left - around, top - around, edge + 2 * around, edge + 2 * around).numpy()
        images = tile_to_images(torch.from_numpy(seen)[None], card, top - around, left - around)
        with torch.inference_mode():
            inner = loaded.generator(images)[:, :, around:-around, around:-around]
        wanted = images_to_pixels(inner, Crop(edge, edge), "uint8")[0].astype(int)
        largest = max(largest, int(abs(wanted - pictures[1].crop(left, top, edge, edge).numpy()).max()))
    return largest


def main() -> None:
    parser = option_parser(__doc__, "large_picture")
    parser.add_argument("photo", nargs="?", type=Path)
    parser.add_argument("--edge", type=int, default=20_000)
    parser.add_argument("--tiles", default="auto", help="several with commas between them")
    parser.add_argument("--model", default="photo2monet")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"
    with tempfile.TemporaryDirectory() as text:
        folder = arguments.folder or Path(text)
        source, tiles = folder / "in.tif", arguments.tiles.split(",")
        if not source.exists():
            draw(arguments.photo, arguments.edge, source)
        runs = {tile: convert(source, tile, arguments.model, folder) for tile in tiles}
        first, *others = (pyvips.Image.new_from_file(str(folder / f"out-{tile}.tif")) for tile in tiles)
        figures = {
            "model": arguments.model,
            "pixels": [first.width, first.height],
            "source_bytes": source.stat().st_size,
            "runs": runs,
            "crops_difference_in_levels": crops_difference(
                arguments.model, source, folder / f"out-{tiles[0]}.tif"
            ),
            "tiles_difference_in_levels": max(
                ((other - first).abs().max() for other in others), default=None
            ),
        }
    for tile, run in runs.items():
        print(f"tiles {tile}: {run['seconds']} s, {run['peak_memory_gib']} GiB")
    print(save(arguments.name or "large_picture", figures))


if __name__ == "__main__":
    main()
