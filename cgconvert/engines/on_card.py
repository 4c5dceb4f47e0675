"""Changes to a network for inductor on a card, which leave its results the same within rounding.

Nothing can be fused with a depthwise convolution of cuDNN. As a sum of shifted values inductor fuses a fixed
filter with its padding and with its neighbours. A convolution whose channels are no multiple of eight leaves
part of the tensor cores' tiles empty. What is best there depends on the card, so it is measured when an
engine is built.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.engines.fuse import WideConvolution
from cgconvert.generators.layers import NARROW, GridFilter, NarrowGridFilter

STEP = 8
"""Channels in multiples of which half-precision convolutions fill the tiles of tensor cores."""

FASTER = 1.05
"""How many times as fast another form of a layer must be to be taken."""

BINOMIAL = (0.25, 0.5, 0.25)

Seconds = Callable[[Callable[[], object]], float]


RUNS = 5


def seconds_on(device: torch.device) -> Seconds:
    """Runs things on a card, and says the least seconds of some runs, after two that count for nothing."""

    def run(work: Callable[[], object]) -> float:
        best = math.inf
        for number in range(2 + RUNS):
            torch.cuda.synchronize(device)
            started = time.perf_counter()
            work()
            torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - started) if number >= 2 else best
        return best

    return run


class ShiftedSum(nn.Module):
    """A fixed filter along both axes, with reflected borders, as sums of shifted values in float32."""

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        self.taps = tuple(taps)

    def forward(self, x: Tensor) -> Tensor:
        reach = len(self.taps) // 2
        padded = F.pad(x, (reach,) * 4, mode="reflect").float()
        height, width = x.shape[2:]
        along = sum(tap * padded[..., i : i + width] for i, tap in enumerate(self.taps))
        assert isinstance(along, Tensor)
        both = sum(tap * along[:, :, i : i + height] for i, tap in enumerate(self.taps))
        assert isinstance(both, Tensor)
        return both.to(x.dtype)


def with_shifted_sums(network: nn.Module) -> nn.Module:
    """A copy whose fixed filters at one resolution are `ShiftedSum`s."""
    changed = copy.deepcopy(network)
    for module in list(changed.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, GridFilter):
                setattr(module, name, ShiftedSum(BINOMIAL))
            elif isinstance(layer, NarrowGridFilter):
                setattr(module, name, ShiftedSum(NARROW))
    return changed


class PaddedConvolution(nn.Module):
    """A convolution with zeros for the channels that are missing to a multiple of `STEP`, in and out."""

    def __init__(self, convolution: nn.Conv2d | WideConvolution) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        self.out, self.missing = weight.shape[0], -weight.shape[1] % STEP
        missing_out = -self.out % STEP
        padded = F.pad(weight, (0, 0, 0, 0, 0, self.missing, 0, missing_out))
        padded = padded.contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(padded, requires_grad=False)
        zeros = torch.zeros(self.out, dtype=weight.dtype, device=weight.device)
        added = F.pad(zeros if bias is None else bias.detach(), (0, missing_out))
        self.bias = nn.Parameter(added, requires_grad=False)
        self.wide = isinstance(convolution, WideConvolution)
        self.stride = (2, 2) if isinstance(convolution, WideConvolution) else convolution.stride
        self.padding = (0, 0) if isinstance(convolution, WideConvolution) else convolution.padding

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, 0, 0, self.missing)) if self.missing else x
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)[:, : self.out]
        return F.pixel_shuffle(y, 2) if self.wide else y


def _narrow(layer: WideConvolution) -> nn.Conv2d:
    """The convolution that a wide one was made of: its first phase, without the last row and column."""
    weight = layer.weight.detach()[::4, :, :-1, :-1]
    out, channels, rows, columns = weight.shape
    plain = nn.Conv2d(channels, out, (rows, columns), device=weight.device, dtype=weight.dtype)
    plain.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    plain.bias = nn.Parameter(layer.bias.detach()[::4].clone(), requires_grad=False)
    return plain


def forms_of(layer: nn.Module) -> dict[str, nn.Module]:
    """The other forms that a layer may take, by name; none for most."""
    if isinstance(layer, WideConvolution):
        plain = _narrow(layer)
        return {
            "plain": plain,
            "padded": PaddedConvolution(plain),
            "wide and padded": PaddedConvolution(layer),
        }
    if type(layer) is not nn.Conv2d or layer.groups != 1 or layer.padding_mode != "zeros":
        return {}
    few = layer.in_channels % STEP or layer.out_channels % STEP
    large = min(layer.kernel_size) >= 5 and layer.dilation == (1, 1) and not isinstance(layer.padding, str)
    return {"padded": PaddedConvolution(layer)} if few and large else {}


def measured_forms(network: nn.Module, example: Tensor, seconds: Seconds) -> dict[str, str]:
    """The layers of a network, by name, that another form is faster for, and which.

    `example` are images of the size that is built for; `seconds` runs something and says how long it took.
    """
    given: dict[str, Tensor] = {}

    def remember(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given[name] = inputs[0]

    candidates = {name: layer for name, layer in network.named_modules() if forms_of(layer)}
    hooks = [layer.register_forward_pre_hook(partial(remember, name)) for name, layer in candidates.items()]
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    chosen = {}
    for name, x in given.items():
        usual = seconds(partial(candidates[name], x))
        times = {form: seconds(partial(layer, x)) for form, layer in forms_of(candidates[name]).items()}
        best = min(times, key=lambda form: times[form])
        if times[best] * FASTER <= usual:
            chosen[name] = best
    return chosen


def with_forms(network: nn.Module, chosen: Mapping[str, str]) -> nn.Module:
    """A copy of a network with layers in the forms that `measured_forms` has chosen."""
    changed = copy.deepcopy(network)
    for name, form in chosen.items():
        parent, _, last = name.rpartition(".")
        setattr(changed.get_submodule(parent), last, forms_of(changed.get_submodule(name))[form])
    return changed
