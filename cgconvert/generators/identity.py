"""The generator that changes nothing and so shows what the pipeline around a network changes."""

from __future__ import annotations

from torch import Tensor, nn


class IdentityGenerator(nn.Module):
    """Returns its input: float NCHW of any size and channel count."""

    def __init__(self, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(f"identity keeps its channels, got {in_channels} -> {out_channels}")

    def forward(self, x: Tensor) -> Tensor:
        return x
