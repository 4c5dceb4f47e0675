"""ONNX graphs and TorchScript programs as OpenVINO networks from images to images in [-1, 1]."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from cgconvert.errors import UnavailableError, first_line
from cgconvert.generators.foreign import ForeignGenerator, TorchScriptGenerator
from cgconvert.models.loading import Model
from cgconvert.tensors.images import padded_size


def convert_foreign(model: Model, generator: ForeignGenerator) -> Any:
    """The network with free batch, height and width. Raises `UnavailableError` if OpenVINO cannot read it."""
    import openvino
    from openvino import opset13 as ops

    try:
        inner = _read(model, generator)
    except Exception as error:  # whatever it does not know
        raise UnavailableError(
            f"openvino cannot read the network of {model.card.name!r} ({first_line(error)}): "
            'use `engine="eager"`'
        ) from error
    (entry,) = inner.get_parameters()
    images = ops.parameter([-1, generator.in_channels, -1, -1], np.float32)
    low, high = generator.input_span
    values = images.output(0)
    if (low, high) != (-1.0, 1.0):
        half = np.float32((high - low) / 2)
        values = ops.add(ops.multiply(values, half), np.float32(low + half)).output(0)
    if generator.number_type == "uint8":
        values = ops.clamp(ops.round(values, "half_to_even"), 0.0, 255.0).output(0)
    if generator.input_order == "nhwc":
        values = ops.transpose(values, np.array([0, 2, 3, 1])).output(0)
    if entry.get_element_type() != openvino.Type.f32:
        values = ops.convert(values, entry.get_element_type().get_type_name()).output(0)
    entry.output(0).replace(values)
    found = inner.get_results()[generator.output].input(0).get_source_output()
    if found.get_element_type() != openvino.Type.f32:
        found = ops.convert(found, "f32").output(0)
    if generator.output_order == "nhwc":
        found = ops.transpose(found, np.array([0, 3, 1, 2])).output(0)
    low, high = generator.output_span
    if (low, high) != (-1.0, 1.0):
        times = np.float32(2 / (high - low))
        found = ops.add(ops.multiply(found, times), np.float32(-1 - low * times)).output(0)
    return openvino.Model([ops.result(found)], [images], "network")


def _read(model: Model, generator: ForeignGenerator) -> Any:
    import openvino

    if not isinstance(generator, TorchScriptGenerator):
        return openvino.Core().read_model(generator.content())
    card = model.card
    height, width = padded_size(2 * card.size_minimum, 2 * card.size_minimum, card)
    shape = (1, generator.in_channels, height, width)
    example = torch.zeros(shape if generator.input_order == "nchw" else [shape[i] for i in (0, 2, 3, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return openvino.convert_model(generator.program(torch.device("cpu")), example_input=example)
