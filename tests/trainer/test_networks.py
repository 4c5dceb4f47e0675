"""Discriminators, augmentation, the weights to start from, and compiling."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cgconvert.errors import UnavailableError, UsageError
from cgconvert.generators import build_generator
from trainer.compute.precision import Precision
from trainer.networks.compiling import compile_verified
from trainer.networks.diffaugment import color, cutout, diff_augment, translation
from trainer.networks.discriminators import PatchDiscriminator, build_discriminator, smallest_input
from trainer.networks.initialization import init_weights


def test_the_patch_discriminator_sees_70_pixels() -> None:
    disc = PatchDiscriminator(ndf=4, norm="none")
    images = torch.zeros(1, 3, 256, 256, requires_grad=True)
    logits = disc(images)
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    assert images.grad is not None
    seen = images.grad.abs().sum((0, 1)).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


@pytest.mark.parametrize(("layers", "scales"), [(1, 1), (2, 1), (3, 1), (3, 2), (2, 3)])
def test_the_smallest_input_of_a_discriminator(layers: int, scales: int) -> None:
    least = smallest_input("patch", layers, scales)
    disc = build_discriminator("patch", ndf=2, layers=layers, scales=scales)
    for maps in (disc(torch.randn(1, 3, least, least)),):
        for logits in maps if scales > 1 else [maps]:
            assert min(logits.shape[2:]) >= 1
    with pytest.raises((ValueError, RuntimeError)):
        disc(torch.randn(1, 3, least - 2**scales, least - 2**scales))


def test_discriminators_have_features_and_scales() -> None:
    images = torch.randn(2, 3, 64, 64)
    for kind in ("patch", "pixel"):
        disc = build_discriminator(kind, ndf=4)
        torch.testing.assert_close(disc.features(images)[-1], disc(images))
    several = build_discriminator("patch", ndf=4, layers=2, scales=3)
    maps = several(images)
    assert [m.shape[-1] for m in maps] == [14, 6, 2]
    with pytest.raises(UsageError, match="unknown discriminator 'giant'"):
        build_discriminator("giant")


def test_starts() -> None:
    torch.manual_seed(0)
    network = init_weights(build_generator("resnet", {"ngf": 16, "blocks": 1}), "normal", 0.02)
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all(abs(float(w.detach().std()) - 0.02) < 0.002 for w in weights)
    assert all(not m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d))
    for kind in ("xavier", "kaiming", "orthogonal"):
        init_weights(network, kind, 1.0)
    with pytest.raises(UsageError, match="unknown initialization 'zeros'"):
        init_weights(network, "zeros")


def smooth_pictures(count: int, edge: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=random) * 1.6 - 0.8
    return nn.functional.interpolate(coarse, size=(edge, edge), mode="bicubic").clamp(-1, 1)


def correlation(generator: nn.Module, pictures: torch.Tensor) -> float:
    with torch.no_grad():
        results = generator(pictures)
    return float(torch.corrcoef(torch.stack([results.flatten(), pictures.flatten()]))[0, 1])


@pytest.mark.parametrize("blocks", [1, 6])
def test_an_identity_start_resembles_the_picture(blocks: int) -> None:
    arguments = {"half_channels": 24, "channels": 16, "blocks": blocks, "norm": "batch"}
    pictures = smooth_pictures(4, 64)
    for seed in range(3):
        torch.manual_seed(seed)
        generator = init_weights(build_generator("h2", arguments), "identity")
        assert correlation(generator, pictures) > 0.9
        torch.manual_seed(seed)
        assert correlation(init_weights(build_generator("h2", arguments)), pictures) < 0.5


@pytest.mark.parametrize(
    "arguments", [{"half_channels": 24, "norm": "instance"}, {"half_channels": 16, "norm": "batch"}]
)
def test_what_cannot_start_as_identity_starts_as_normal(arguments: dict[str, object]) -> None:
    small = {"channels": 8, "blocks": 1, **arguments}
    first, second = (build_generator("h2", small) for _ in range(2))
    torch.manual_seed(0)
    init_weights(first, "identity")
    torch.manual_seed(0)
    init_weights(second, "normal")
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_a_sub_pixel_start_has_no_grid() -> None:
    torch.manual_seed(0)
    network = init_weights(build_generator("h2", {"half_channels": 8, "channels": 8, "blocks": 1}))
    shuffled = nn.functional.pixel_shuffle(network.get_submodule("tail")(torch.randn(1, 8, 8, 8)), 2)
    blocks = shuffled.unfold(2, 2, 2).unfold(3, 2, 2)
    assert float((blocks.amax((-2, -1)) - blocks.amin((-2, -1))).detach().max()) < 1e-6


@pytest.mark.parametrize("augment", [color, translation, cutout])
def test_augmentations_keep_shape_pass_gradients_and_differ(augment: object) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 16, 24, requires_grad=True)
    result = augment(images)  # type: ignore[operator]
    assert result.shape == images.shape
    (gradient,) = torch.autograd.grad(result.sum(), images)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert not torch.allclose(result, images)


def test_translation_moves_whole_images() -> None:
    torch.manual_seed(0)
    image = torch.zeros(16, 1, 16, 16)
    image[:, :, 8, 8] = 1
    moved = translation(image)
    places = moved.flatten(1).argmax(1)
    assert moved.sum() == 16
    assert ((places // 16 - 8).abs() <= 2).all()
    assert ((places % 16 - 8).abs() <= 2).all()
    assert len(places.unique()) > 5
    with pytest.raises(UsageError, match="unknown augmentation"):
        diff_augment(image, ["blur"])


class Crooked(nn.Conv2d):
    """A network whose compiled form loses a gradient, or fails."""

    fault = ""

    def compile(self, *args: object, **kwargs: object) -> None:
        self.fault = "fails" if self.fault == "fail" else "loses"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fault == "fails":
            raise ValueError("no such kernel")
        y = super().forward(x)
        return y.detach() + 0 * y if self.fault == "loses" else y


def test_a_compiler_is_believed_only_after_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    images, precision = torch.randn(2, 3, 8, 8), Precision(torch.device("cpu"), "fp32")
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    monkeypatch.setattr(plain, "compile", lambda: None)
    state = torch.get_rng_state()
    compile_verified("gen_ab", plain, images, precision)
    assert torch.equal(torch.get_rng_state(), state)
    assert not plain[1].running_mean.any(), "statistics are put back"
    with pytest.raises(UnavailableError, match=r"gives gen_ab other gradients .*run.compile = false"):
        compile_verified("gen_ab", Crooked(3, 4, 3), images, precision)
    failing = Crooked(3, 4, 3)
    failing.fault = "fail"
    monkeypatch.setattr(failing, "forward", lambda x: Crooked.forward(failing, x))
    torch.manual_seed(0)
    with pytest.raises(UnavailableError, match=r"torch.compile fails for gen_ab here .no such kernel"):
        compile_verified("gen_ab", failing, images, precision)
