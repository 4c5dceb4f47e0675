"""Models for programs: arrays and tensors through an engine that stays ready."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import cgconvert
from cgconvert import EngineOptions, Model, VideoOptions
from cgconvert.errors import ModelError, UsageError
from cgconvert.models import loading
from cgconvert.models.catalog import installed_path
from cgconvert.models.importing import import_checkpoint
from tests.models import reference_networks as reference
from tests.pictures.pictures import noise, smooth
from tests.video.clips import Clip, make_clip

PLAIN = {"device": "cpu", "engine": "eager", "precision": "fp32"}


@pytest.fixture
def net(tmp_path: Path) -> str:
    """The name of an installed model that is small, with random weights."""
    path = tmp_path / "net.pth"
    torch.save(reference.randomised(reference.resnet(ngf=4, blocks=1)).state_dict(), path)
    import_checkpoint(path, "net")
    return "net"


@pytest.mark.parametrize("size", [(1, 1), (7, 31), (48, 40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_identity_keeps_values_type_and_shape(dtype: type, size: tuple[int, int]) -> None:
    model = cgconvert.load_model("identity", **PLAIN)
    pixels = noise(*size, seed=3).astype(dtype) * (257 if dtype == np.uint16 else 1)
    pictures = np.stack([pixels, pixels[::-1]])
    if dtype not in (np.uint8, np.uint16):
        pictures = (pictures / 255).astype(dtype)
    exact = dtype in (np.uint8, np.uint16)
    for array in (pictures, pictures[1], pictures[:, ::-1]):
        result = model.convert(array)
        assert type(result) is np.ndarray and result.dtype == dtype and result.shape == array.shape
        np.testing.assert_allclose(result, array, atol=0 if exact else 1e-3 if dtype == np.float16 else 1e-6)
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    for values in (tensor, tensor[0]):
        back = model.convert(values)
        assert back.dtype == values.dtype and back.shape == values.shape and back.device == values.device
        np.testing.assert_allclose(back.numpy(), values.numpy(), atol=0 if exact else 1e-3)


def test_every_form_of_a_picture_has_the_result_of_the_plain_network(net: str) -> None:
    model = cgconvert.load_model(net, **PLAIN)
    pictures = np.stack([noise(21, 38, seed=seed) for seed in range(3)])
    plain = loading.load_model(net)
    expected = np.stack([plain.convert(picture) for picture in pictures]).astype(int)
    assert expected.std() > 5
    assert np.abs(model.convert(pictures).astype(int) - expected).max() <= 1
    assert np.abs(model.convert(pictures[1]).astype(int) - expected[1]).max() <= 1
    floats = model.convert(pictures.astype(np.float32) / 255)
    assert np.abs(floats * 255 - expected).max() <= 0.51
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    assert np.abs(model.convert(tensor).permute(0, 2, 3, 1).numpy().astype(int) - expected).max() <= 1
    values = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        wanted = plain.generator(values[None] * 2 - 1)[0]
    assert torch.allclose(model.convert(values), wanted / 2 + 0.5, atol=1e-4)


def test_values_beyond_their_range_count_as_its_ends() -> None:
    model = cgconvert.load_model("identity", **PLAIN)
    result = model.convert(torch.tensor([-3.0, 0.25, 9.0]).view(3, 1, 1))
    assert torch.allclose(result.flatten(), torch.tensor([0.0, 0.25, 1.0]))


def test_the_engine_stays_ready(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    create = cgconvert.arrays.create_job

    def counted(model: object, options: EngineOptions, *rest: object) -> object:
        made.append(options)
        return create(model, options, *rest)

    monkeypatch.setattr(cgconvert.arrays, "create_job", counted)
    model = cgconvert.load_model(net, **PLAIN)
    for size in ((32, 32), (32, 32), (20, 44)):
        model.convert(noise(*size, seed=0))
    assert [options.batch for options in made] == [1]
    for _ in range(2):
        model.convert(np.stack([noise(32, 32, seed=0)] * 3))
    assert [options.batch for options in made] == [1, None]
    model.convert(noise(32, 32, seed=0), precision="bf16")
    assert [options.precision for options in made] == ["fp32", "fp32", "bf16"]
    assert "ready: eager fp32, eager bf16" in repr(model)
    model.close()
    assert "ready" not in repr(model)
    model.convert(noise(32, 32, seed=0))
    assert len(made) == 4


def test_options_are_those_of_pictures(net: str) -> None:
    model, plain = cgconvert.load_model(net, **PLAIN), loading.load_model(net)
    picture = smooth(40, 48)
    assert np.array_equal(model.convert(picture, strength=0.0), picture)
    for options in ({"work_size": "0.5x"}, {"strength": 0.5}, {"keep_colours": True}, {"stroke": "large"}):
        expected = plain.convert(picture, **options).astype(int)
        assert np.abs(model.convert(picture, **options).astype(int) - expected).max() <= 1
    both = model.convert(np.stack([picture, picture]), strength=0.5)
    assert np.array_equal(both[0], both[1])


def test_a_model_is_pickled_by_name(net: str) -> None:
    model = cgconvert.load_model(net, engine="eager", precision="fp32", device="cpu")
    picture = noise(16, 16, seed=0)
    result = model.convert(picture)
    data = pickle.dumps(model)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert isinstance(again, Model) and again.options == model.options
    assert np.array_equal(again.convert(picture), result)


def test_a_model_named_by_a_relative_path_is_found_from_elsewhere(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.safetensors").write_bytes(installed_path(net).read_bytes())
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(cgconvert.load_model("mine.safetensors", **PLAIN))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert pickle.loads(data).path == tmp_path / "mine.safetensors"


def test_it_shows_itself_in_a_notebook(net: str) -> None:
    model = cgconvert.load_model(net, **PLAIN)
    assert repr(model) == "<Model net: photo -> picture, ResNet, 1 blocks, ngf 4, instance norm>"
    assert "<img" not in model._repr_html_()
    model.convert(noise(600, 30, seed=0))
    shown = model._repr_html_()
    assert shown.count('<img src="data:image/png;base64,iVBOR') == 2
    assert "photo -&gt; picture" in shown
    assert len(shown) < 100_000


def test_names_complete() -> None:
    assert set(cgconvert.__all__) <= set(dir(cgconvert))
    assert "__version__" in dir(cgconvert)
    for name in dir(cgconvert):
        getattr(cgconvert, name)


WRONG = [
    (np.zeros((4, 4), np.uint8), r"of shape \(H, W, 3\), or N of them, got shape \(4, 4\)"),
    (np.zeros((3, 4, 4), np.uint8), r"got shape \(3, 4, 4\)"),
    (np.zeros((0, 4, 3), np.uint8), r"got shape \(0, 4, 3\)"),
    (torch.zeros(4, 4, 3), r"of shape \(3, H, W\), or N of them, got shape \(4, 4, 3\)"),
    (np.zeros((4, 4, 3), np.int32), "got int32"),
    (np.zeros((4, 4, 3), bool), "got bool"),
    (torch.zeros(3, 4, 4, dtype=torch.int64), "got torch.int64"),
    ([[1]], "expected an array or a tensor, got list"),
]


@pytest.mark.parametrize(("value", "words"), WRONG)
def test_what_is_no_picture(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cgconvert.load_model("identity", **PLAIN).convert(value)


def test_options_that_make_no_sense(net: str) -> None:
    model = cgconvert.load_model(net, **PLAIN)
    with pytest.raises(ValueError, match="are for arrays of uint8 or uint16"):
        model.convert(torch.zeros(3, 4, 4), strength=0.5)
    with pytest.raises(UsageError):
        model.convert(noise(16, 16, seed=0), engine="steam")
    with pytest.raises(ModelError, match="no model named 'nothing'"):
        cgconvert.load_model("nothing")


def test_no_pictures_are_no_pictures() -> None:
    empty = np.zeros((0, 4, 4, 3), np.uint8)
    assert cgconvert.load_model("identity", **PLAIN).convert(empty).shape == (0, 4, 4, 3)


@pytest.mark.needs_cuda
def test_tensors_on_a_gpu_stay_there(net: str) -> None:
    pictures = torch.from_numpy(np.stack([noise(32, 48, seed=s) for s in range(3)])).permute(0, 3, 1, 2)
    expected = cgconvert.load_model(net, **PLAIN).convert(pictures).int()
    model = cgconvert.load_model(net, engine="eager", precision="fp32")
    result = model.convert(pictures.cuda())
    assert result.is_cuda and result.dtype == torch.uint8
    assert (result.cpu().int() - expected).abs().max() <= 1
    floats = model.convert(pictures.cuda().half() / 255)
    assert floats.is_cuda and floats.dtype == torch.float16
    assert (floats.cpu().float() * 255 - expected).abs().max() <= 1.5


def test_frames_of_a_video_are_shown_as_they_are_made(net: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", Clip(frames=7))
    seen: list[tuple[np.ndarray, float]] = []
    options = EngineOptions(**PLAIN)
    report = cgconvert.convert_video(
        tmp_path / "in.mp4",
        tmp_path / "out.mkv",
        net,
        VideoOptions(codec="ffv1"),
        options,
        on_frame=lambda pixels, seconds: seen.append((pixels.copy(), seconds)),
    )
    assert report.frames_out == len(seen) == 7
    times = [seconds for _, seconds in seen]
    assert times == sorted(set(times)) and times[0] == 0
    assert {pixels.shape for pixels, _ in seen} == {(report.size[1], report.size[0], 3)}


def test_what_on_frame_raises_ends_the_run(net: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", Clip(frames=4))

    def stop(pixels: np.ndarray, seconds: float) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        cgconvert.convert_video(
            tmp_path / "in.mp4",
            tmp_path / "out.mp4",
            net,
            engine_options=EngineOptions(**PLAIN),
            on_frame=stop,
        )
    assert not (tmp_path / "out.mp4").exists()
