"""What int8 leaves in floating point."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.engines.models import make_learned, make_model, make_pixels

pytest.importorskip("openvino")
pytest.importorskip("nncf")

from cgconvert.engines.openvino import _convert
from cgconvert.engines.quantise import IN_FLOAT, quantise
from cgconvert.tensors.noise import with_noise


def test_convolutions_are_quantised_and_fixed_filters_are_not() -> None:
    """H2's last filter in int8 cost photo2monet 1.2 to 2.2 dB, and time."""
    images = [(picture / 127.5 - 1).astype(np.float32) for picture in make_pixels(2, 32, 32)]
    network = quantise(_convert(make_model("h2")), [image.transpose(2, 0, 1)[None] for image in images])
    inputs: dict[str, list[str]] = {"Convolution": [], "GroupConvolution": []}
    for layer in network.get_ops():
        if layer.get_type_name() in inputs:
            source = layer.input_value(0).get_node()
            while source.get_type_name() in ("Pad", "Reshape", "Transpose"):  # which int8 passes through
                source = source.input_value(0).get_node()
            inputs[layer.get_type_name()].append(source.get_type_name())
    assert len(inputs["GroupConvolution"]) == 5  # the last filter along and across, twice; one at half size
    assert "FakeQuantize" not in inputs["GroupConvolution"]
    assert inputs["Convolution"].count("FakeQuantize") == 9  # head, down, 4 in blocks, up, fuse, tail


def test_what_keeps_black_and_detail_is_not_quantised() -> None:
    pictures = torch.from_numpy(make_pixels(2, 32, 32)).permute(0, 3, 1, 2) / 127.5 - 1
    network = quantise(_convert(make_learned()), [with_noise(one[None], 2, 3).numpy() for one in pictures])
    seen = set()
    for layer in network.get_ops():
        if (kind := layer.get_type_name()) in IN_FLOAT:
            seen.add(kind)
            sources = [layer.input_value(index).get_node() for index in range(layer.get_input_size())]
            assert "FakeQuantize" not in [source.get_type_name() for source in sources], layer
    assert {"Minimum", "ReduceMax", "Multiply"} <= seen
