"""Should the field of noise follow a moving camera? The result with a still field and with one that moves.

    python benchmarks/training/moving_noise.py CLIP [--models NAME,NAME...]

Frames of the clip at 640x360 are moved by whole pixels, with the field of noise left where it is and with the
field moved along. Each time the result is compared with the former result, moved as the picture is: the mean
absolute difference in levels of 255. The field should follow a camera if that is smaller when it moves.
Writes results/moving_noise.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from cgconvert import load_model
from cgconvert.media.picture.resize import resized
from cgconvert.tensors.images import scaled_to_images
from cgconvert.tensors.noise import noise_field
from trainer.data.pictures import video_frames

SHIFTS = ((1, 0), (2, 0), (3, 1), (4, 4))
FRAMES, EVERY = 4, 15
MARGIN = 24  # pixels that are left out, since what moves out at one edge comes in at the other


def main() -> None:
    parser = option_parser(__doc__, "moving_noise")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--models", default="photo2monet,photo2monet-fast,photo2vangogh,photo2ukiyoe")
    arguments = parser.parse_args()
    taken = video_frames(arguments.clip).read(range(0, FRAMES * EVERY, EVERY))
    frames = [torch.from_numpy(resized(pixels, 640, 360)).permute(2, 0, 1) for _, pixels in taken]
    pictures = scaled_to_images(torch.stack(frames), 255, torch.float32)
    rows = {}
    for name in arguments.models.split(","):
        model = load_model(name)
        noise = noise_field(model.card.noise_seed, model.card.noise["channels"], 360, 640)

        def result(pictures: Tensor, noise: Tensor, network: torch.nn.Module = model.generator) -> Tensor:
            with torch.inference_mode():
                return network(torch.cat([pictures, noise.expand(len(pictures), -1, -1, -1)], 1))

        before = result(pictures, noise)
        rows[name] = {}
        for shift in SHIFTS:

            def moved(images: Tensor, shift: tuple[int, int] = shift) -> Tensor:
                return torch.roll(images, shift, (-2, -1))

            levels = [
                float((after - moved(before))[..., MARGIN:-MARGIN, MARGIN:-MARGIN].abs().mean()) * 127.5
                for after in (result(moved(pictures), noise), result(moved(pictures), moved(noise)))
            ]
            rows[name]["{}, {}".format(*shift)] = dict(
                zip(("still", "moved"), (round(level, 2) for level in levels), strict=True)
            )
        print(name, rows[name], flush=True)
    print(save(arguments.name or "moving_noise", {"clip": arguments.clip.name, "levels": rows}))


if __name__ == "__main__":
    main()
