"""The fixed noise that a generator's strokes hang on: a hash of position, the same on every machine.

A generator that paints has to choose where a stroke begins, also where a picture is flat. If it can only
choose by what it sees there, it hangs strokes on the grain of a video, which changes with every frame. So
it is given channels of noise that stay where they are (compare StyleGAN's noise inputs, Karras et al. 2019).

The field is a pure function of seed, channel and place: it depends on no random generator's state, batch,
tile or device. All arithmetic is on whole numbers below 2 ** 24, since some runtimes compute with float32 in
the place of whole numbers, and the values are multiples of 1/256, which float16 and bfloat16 hold exactly.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import torch
from torch import Tensor

PRIME = 4093
"""The largest prime with PRIME * PRIME below 2 ** 24; the field repeats after so many pixels."""
ROUNDS = 5
LEVELS = 256
KEPT_BYTES = 256 * 2**20
"""Of fields that are kept; one of two channels at 3840x2160 in float32 has 66 MB."""


def round_keys(seed: int, channel: int) -> list[int]:
    """The keys of a channel's rounds, from 0 to PRIME - 1: SplitMix64 (Steele et al. 2014), taken modulo."""
    state = (seed * 0x9E3779B97F4A7C15 + channel * 0xD1B54A32D192ED03) % 2**64
    keys = []
    for _ in range(ROUNDS):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        keys.append((mixed ^ (mixed >> 31)) % PRIME)
    return keys


def field_keys(seed: int, channels: int) -> Tensor:
    """The keys of all channels, int32 (channels, rounds), as `hash_places` takes them."""
    return torch.tensor([round_keys(seed, channel) for channel in range(channels)], dtype=torch.int32)


def hash_places(rows: Tensor, columns: Tensor, keys: Tensor) -> Tensor:
    """The field's values in [-1, 1], float32, at whole-numbered places.

    `rows` (H, 1) and `columns` (1, W) are int32 and not negative, `keys` (C, rounds) int32; the result is
    (C, H, W). A Feistel network on the two coordinates modulo PRIME with w * (w + key) as its round function:
    one to one, so that no two places within PRIME pixels are confused.
    """
    left = (rows % PRIME)[None]
    right = (columns % PRIME)[None]
    for number in range(ROUNDS):
        key = keys[:, number].view(-1, 1, 1)
        left, right = right, (left + right * ((right + key) % PRIME)) % PRIME
    level = torch.div(right * LEVELS, PRIME, rounding_mode="trunc")
    return (2 * level - (LEVELS - 1)).to(torch.float32) / LEVELS


def noise_field(
    seed: int,
    channels: int,
    height: int,
    width: int,
    top: int = 0,
    left: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The part of the field whose first place is (top, left): float32 (channels, height, width) in (-1, 1).

    The values are uniform over 256 levels with mean 0.
    """
    keys = field_keys(seed, channels)
    rows = torch.arange(top, top + height, dtype=torch.int32, device=device)[:, None]
    columns = torch.arange(left, left + width, dtype=torch.int32, device=device)[None]
    return hash_places(rows, columns, keys.to(device))


_fields: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
_lock = Lock()


def with_noise(images: Tensor, channels: int, seed: int, top: int = 0, left: int = 0) -> Tensor:
    """Images (N, C, H, W) with the field as further channels: (N, C + channels, H, W), of the images' type.

    `top` and `left` say where in their picture the images lie. Fields of whole pictures are kept for the next
    ones of their size. Channels-last images stay channels-last.
    """
    if channels == 0:
        return images
    count, _, height, width = images.shape
    if top or left:
        field = noise_field(seed, channels, height, width, top, left, images.device).to(images.dtype)
    else:
        field = _whole_field(seed, channels, height, width, images.device, images.dtype)
    last = images.is_contiguous(memory_format=torch.channels_last)
    joined = torch.cat([images, field[None].expand(count, -1, -1, -1)], dim=1)
    return joined.contiguous(memory_format=torch.channels_last) if last else joined


def _whole_field(
    seed: int, channels: int, height: int, width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    key = (seed, channels, height, width, device, dtype)
    with _lock:
        if key in _fields:
            _fields.move_to_end(key)
            return _fields[key]
        with torch.inference_mode(False):  # who asks for it next may want gradients
            field = noise_field(seed, channels, height, width, 0, 0, device).to(dtype)
        _fields[key] = field
        while len(_fields) > 1 and sum(kept.nbytes for kept in _fields.values()) > KEPT_BYTES:
            _fields.popitem(last=False)
        return field
