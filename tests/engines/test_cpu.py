"""What eager does on a CPU: the same pictures with less around the arithmetic, several side by side."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F

from cgconvert.engines import cpu
from cgconvert.engines.batches import choose_batch, pixels_that_fit
from cgconvert.engines.cpu import for_cpu
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.fuse import operate
from cgconvert.engines.job import EngineJob
from cgconvert.engines.streams import Streams
from cgconvert.tensors.images import psnr
from tests.engines.models import KINDS, make_model

CPU = torch.device("cpu")


def images_of(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    torch.manual_seed(1)
    images = torch.randn(count, channels, height, width)
    return images.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [3, 12, 24, 32, 64])
@pytest.mark.parametrize("reach", [1, 2, 3])
def test_padding_is_torchs(channels: int, reach: int) -> None:
    x = images_of(2, channels, 9, 14)
    padded = cpu.reflect_pad(x, reach)
    assert torch.equal(padded, F.pad(x, (reach,) * 4, mode="reflect"))
    assert padded.is_contiguous(memory_format=torch.channels_last)


def test_relu_is_torchs() -> None:
    x = images_of(1, 24, 16, 16)
    x[0, 0, 0, :4] = torch.tensor([-0.0, 0.0, float("inf"), float("-inf")])
    wanted = F.relu(x)
    assert cpu.relu_(x) is x and torch.equal(x, wanted)


def test_a_relu_that_is_not_in_place_leaves_its_input() -> None:
    x = images_of(1, 24, 8, 8)
    before = x.clone()
    assert torch.equal(cpu.BitReLU(inplace=False)(x), F.relu(before)) and torch.equal(x, before)
    assert cpu.BitReLU(inplace=True)(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("channels", [3, 24, 32])
def test_norms_are_those_of_each_picture(channels: int) -> None:
    x = images_of(3, channels, 20, 28) * 3 + 5
    got = cpu.instance_norm(x, 1e-5).float()
    assert (
        got - F.instance_norm(x.float())
    ).abs().max() < 0.0157  # half a step of bf16 between 2 and 4, and twice for the sums


def test_tanh_is_exact_to_float32() -> None:
    x = images_of(1, 3, 64, 64) * 2
    assert (cpu.tanh(x) - x.float().tanh()).abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_it_is_as_close_to_float32_as_plain_bf16(kind: str, size: tuple[int, int]) -> None:
    model = make_model(kind)
    torch.manual_seed(2)
    images = torch.rand(2, model.card.network_channels, *size) * 2 - 1
    half = images.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        wanted = model.generator(images.clone())
        plain = operate(model.generator).to(torch.bfloat16)(half.clone()).float()
        got = for_cpu(operate(model.generator))(half.clone()).float()
    assert got.shape == wanted.shape
    assert psnr(got, wanted) > psnr(plain, wanted) - 1.0
    assert psnr(got, wanted) > 40


def test_the_models_own_generator_stays_as_it_was() -> None:
    model = make_model("h2")
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    engine = EagerEngine(model, CPU, "bf16")
    engine(torch.zeros(1, 3, 32, 32))
    after = model.generator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_streams_keep_order_and_share_the_threads() -> None:
    threads = torch.get_num_threads()
    streams = Streams(3)
    try:
        seen: dict[str, int] = {}

        def double(image: torch.Tensor) -> torch.Tensor:
            seen[threading.current_thread().name] = torch.get_num_threads()
            return image * 2

        images = torch.arange(7.0).view(7, 1, 1, 1)
        assert torch.equal(streams.run(double, images), images * 2)
        assert set(seen.values()) == {max(1, threads // 3)}
        assert torch.get_num_threads() == threads
    finally:
        streams.close()


def test_an_error_in_a_stream_arrives() -> None:
    streams = Streams(2)

    def fail(image: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    try:
        with pytest.raises(torch.OutOfMemoryError):
            streams.run(fail, torch.zeros(3, 1, 1, 1))
    finally:
        streams.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pictures_side_by_side_are_those_one_by_one(precision: str) -> None:
    engine = EagerEngine(make_model("h2"), CPU, precision)
    engine.streams = 2
    images = torch.rand(5, 3, 48, 32) * 2 - 1
    together = engine(images)
    assert engine.describe()["streams"] == 2
    assert psnr(together, torch.cat([engine(image[None]) for image in images])) > 80
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("cgconvert-stream")]
    assert len(names) == 2
    engine.close()
    assert not any(thread.name.startswith("cgconvert-stream") for thread in threading.enumerate())


def test_a_batch_fills_the_streams_as_far_as_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EagerEngine(make_model("h2"), CPU, "bf16")
    engine.streams = 3
    job = EngineJob(engine)
    assert choose_batch(job, 1080, 1920) == 3
    per_pixel = (2**30) / pixels_with(job, 2**30, monkeypatch)
    monkeypatch.setattr(
        "cgconvert.engines.batches.free_memory", lambda device: int(2.5 * per_pixel * 1080 * 1920)
    )
    assert choose_batch(job, 1080, 1920) == 2
    engine.streams = 1
    assert choose_batch(job, 1080, 1920) == 1


def pixels_with(job: EngineJob, free: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("cgconvert.engines.batches.free_memory", lambda device: free)
    return pixels_that_fit(job)


def test_a_start_brings_no_compiler_in() -> None:
    """torch's compiler takes a second to import; arithmetic on the meta device does it unasked."""
    code = (
        "import sys, torch\n"
        "from cgconvert.engines.batches import bytes_per_pixel\n"
        "from cgconvert.engines.eager import EagerEngine\n"
        "from cgconvert.engines.job import EngineJob\n"
        "from cgconvert.models.loading import load_model\n"
        "engine = EagerEngine(load_model('photo2monet'), torch.device('cpu'), 'bf16')\n"
        "engine.streams = 2\n"
        "assert bytes_per_pixel(EngineJob(engine)) > 0\n"
        "channels = 3 + engine.model.card.noise_channels\n"
        "engine(torch.zeros(2, channels, 32, 32)); engine.close()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
