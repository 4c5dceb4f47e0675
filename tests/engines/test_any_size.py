"""What is built once for all sizes: by the real compilers, and what TensorRT is asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cgconvert.engines.cache import list_entries
from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.fuse import operate, with_group_norms
from cgconvert.engines.tensorrt import TensorRTEngine
from cgconvert.tensors.images import psnr
from tests.engines.models import KINDS, make_model
from tests.engines.test_contract import compare

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h2_noise", "resnet_affine", "unet_instance"])
def test_one_library_takes_all_further_sizes(kind: str) -> None:
    engine = CompileEngine(make_model(kind), CPU, "fp32")
    multiple, (least, _) = engine.model.card.size_multiple, engine.edges()
    # As if two sizes had been built for one by one, which the contract's tests do.
    engine.runners = {(1, 1, edge): lambda images: images for edge in (1, 2)}
    for count, rows, columns in [(3, 0, 1), (1, 2, 0), (2, 3, 5)]:
        height, width = least + multiple * rows, least + multiple * columns
        assert compare(engine, count, height, width) >= 60, (count, height, width)
    assert engine.describe()["built_for"][-1] == "any size" and engine.why_no_any_size is None
    (entry,) = list_entries()
    assert entry.about == f"{engine.model.card.name}, fp32, any size" and entry.parts["shape"] == "any"
    engine.close()


@pytest.mark.slow
def test_what_is_traced_takes_all_further_sizes_too() -> None:
    """Where nothing is compiled ahead of time: without NVIDIA's toolkit."""
    engine = CompileEngine(make_model("h2"), CPU, "fp32")
    engine.why_traced = "there is no CUDA toolkit (CUDA_HOME)"
    traces: list[int] = []
    run = engine._trace({"shape": [2, 32, 40], "any_size": True, "passage": None})
    for height, width in [(32, 40), (48, 64), (64, 24)]:
        images = engine.example((2, height, width)).uniform_(-1, 1)
        with torch.inference_mode():
            assert psnr(run(images), engine.model.generator(images)) >= 60
        traces.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert traces[0] == traces[-1], "no size is traced by itself"


def test_what_does_not_fit_the_open_dimensions_goes_layer_by_layer() -> None:
    engine = TensorRTEngine(make_model("h2"), CPU, "fp32")
    engine.runners = {(1, 1, edge): lambda images: images for edge in (1, 2)}
    engine.any_size = lambda images: images
    assert engine.edges() == (16, 2048)
    inside, outside = torch.rand(5, 3, 16, 2048), torch.rand(1, 3, 16, 2052)
    assert torch.equal(engine(inside), inside)
    assert engine(outside).shape == outside.shape and not torch.equal(engine(outside), outside)


def test_tensorrt_is_given_a_profile_and_saved_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for torch-tensorrt, with the arguments of its documentation; the export is torch's own."""
    asked: dict[str, Any] = {}

    def compile(program: Any, *, arg_inputs: list[Any], device: Any, **settings: Any) -> Any:
        asked.update(program=program, inputs=arg_inputs, settings=settings)
        return "built"

    def save(module: Any, path: str, *, output_format: str, arg_inputs: list[Any], **more: Any) -> None:
        asked.update(saved=module, path=path, examples=arg_inputs, more=more)

    library = SimpleNamespace(Input=lambda **given: given, dynamo=SimpleNamespace(compile=compile), save=save)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", library)
    engine = TensorRTEngine(make_model("resnet"), CPU, "fp32")
    engine.write(tmp_path, (8, 720, 1280), any_size=True)
    assert asked["inputs"] == [
        {
            "min_shape": (1, 3, 16, 16),
            "opt_shape": (4, 3, 720, 1280),
            "max_shape": (4, 3, 2048, 2048),
            "dtype": torch.float32,
        }
    ]
    assert asked["examples"][0].shape == (4, 3, 720, 1280)
    assert [list(dims) for dims in asked["more"]["dynamic_shapes"]] == [[0, 2, 3]]
    ranges = sorted((int(r.lower), int(r.upper)) for r in asked["program"].range_constraints.values())
    assert (1, 4) in ranges
    targets = {str(node.target) for node in asked["program"].graph.nodes}
    assert "aten.group_norm.default" in targets and "aten.instance_norm.default" not in targets
    small = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        assert psnr(asked["program"].module()(small), engine.model.generator(small)) >= 60
    engine.write(tmp_path, (2, 32, 48))
    assert asked["inputs"][0].shape == (2, 3, 32, 48) and asked["more"] == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "resnet" in kind or "h2" in kind])
def test_group_norms_are_the_same_function(kind: str) -> None:
    network = operate(make_model(kind).generator)
    changed = with_group_norms(network)
    assert not any(isinstance(layer, torch.nn.InstanceNorm2d) for layer in changed.modules())
    images = torch.rand(2, _channels(kind), 32, 48) * 2 - 1
    with torch.inference_mode():
        assert psnr(changed(images), network(images)) >= 100


def _channels(kind: str) -> int:
    return int(KINDS[kind][1].get("in_channels", 3))
