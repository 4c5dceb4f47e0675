"""Losses, pool, discriminators, starts, augmentation, motion, schedule: each against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cgconvert.errors import UnavailableError, UsageError
from cgconvert.generators import build_generator
from trainer.compute.precision import Precision, choose_device, choose_precision
from trainer.config import RunConfig
from trainer.losses.adversarial import gan_loss, r1_penalty
from trainer.losses.features import matching_loss, mean_matching_loss
from trainer.losses.temporal import flicker, masked_l1, next_frame, synthetic_flow, warp
from trainer.methods.image_pool import ImagePool
from trainer.networks.compiling import compile_verified
from trainer.networks.diffaugment import color, cutout, diff_augment, translation
from trainer.networks.discriminators import PatchDiscriminator, build_discriminator, smallest_input
from trainer.networks.initialization import init_weights
from trainer.runs.schedule import Schedule


def test_gan_losses_are_their_definitions() -> None:
    logits = torch.tensor([[-1.0, 0.5], [2.0, 0.0]])
    assert gan_loss(logits, True, "lsgan") == pytest.approx(float(((logits - 1) ** 2).mean()))
    assert gan_loss(logits, False, "lsgan") == pytest.approx(float((logits**2).mean()))
    assert gan_loss(logits, True, "vanilla") == pytest.approx(float(-torch.sigmoid(logits).log().mean()))
    assert gan_loss(logits, False, "vanilla") == pytest.approx(
        float(-(1 - torch.sigmoid(logits)).log().mean())
    )
    assert gan_loss(logits, True, "hinge") == pytest.approx(float((1 - logits).clamp_min(0).mean()))
    assert gan_loss(logits, False, "hinge") == pytest.approx(float((1 + logits).clamp_min(0).mean()))
    assert gan_loss(logits, True, "hinge", for_generator=True) == pytest.approx(float(-logits.mean()))
    assert gan_loss(logits, True, "wgan") == pytest.approx(float(-logits.mean()))
    assert gan_loss([logits, logits + 1], False, "lsgan") == pytest.approx(
        0.5 * float((logits**2).mean() + ((logits + 1) ** 2).mean())
    )
    with pytest.raises(UsageError, match="unknown gan mode 'relu'"):
        gan_loss(logits, True, "relu")


def test_r1_is_half_the_squared_gradient() -> None:
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 4, 4)
    penalty = r1_penalty((images * weight).sum((1, 2, 3)), images)
    assert penalty == pytest.approx(0.5 * float((weight**2).sum()))


def test_feature_matching_leaves_the_logits_out() -> None:
    fake, real = [torch.zeros(1, 2, 4, 4), torch.zeros(1)], [torch.ones(1, 2, 4, 4), torch.full((1,), 9.0)]
    assert matching_loss(fake, real) == pytest.approx(1.0)
    assert matching_loss([fake, fake], [real, real]) == pytest.approx(1.0)
    moved = [torch.randn(1, 2, 4, 4), torch.zeros(1)]
    assert mean_matching_loss(moved, [moved[0].flip(2, 3), moved[1]]) == pytest.approx(0.0, abs=1e-6)


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


def test_the_pool_fills_then_swaps_half() -> None:
    pool = ImagePool(10, seed=0)
    first = torch.arange(10.0).view(10, 1, 1, 1)
    assert torch.equal(pool.query(first), first)
    new = torch.arange(100.0, 500.0).view(-1, 1, 1, 1)
    out = pool.query(new).flatten()
    swapped = (out != new.flatten()).float().mean()
    assert 0.4 < swapped < 0.6
    assert len(pool.state_dict()["images"]) == 10
    assert torch.equal(ImagePool(0, 0).query(new), new)


def test_a_pool_goes_on_from_its_state() -> None:
    one, two = ImagePool(4, seed=1), ImagePool(4, seed=2)
    one.query(torch.randn(6, 1, 2, 2))
    two.load_state_dict(one.state_dict(), torch.device("cpu"))
    more = torch.randn(20, 1, 2, 2)
    assert torch.equal(one.query(more), two.query(more))


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


def test_warp_moves_by_the_flow() -> None:
    images = torch.rand(1, 3, 20, 24)
    flow = torch.zeros(1, 20, 24, 2)
    flow[..., 0], flow[..., 1] = 3.0, -2.0
    moved, mask = warp(images, flow)
    torch.testing.assert_close(moved[:, :, 2:, :21], images[:, :, :-2, 3:], rtol=1e-4, atol=1e-5)
    assert mask[0, 0, 2:, :21].all()
    assert not mask[0, 0, :2].any()
    assert not mask[0, 0, :, 21:].any()


def test_temporal_loss_is_small_for_what_moves_along_and_large_for_what_stays() -> None:
    torch.manual_seed(0)
    images = nn.functional.interpolate(torch.rand(2, 3, 16, 16) * 2 - 1, size=64, mode="bicubic").clamp(-1, 1)
    pattern = torch.randn(1, 3, 64, 64)
    following, wanted, mask = next_frame(images, 0.5 * images)
    steady = masked_l1(0.5 * following, wanted, mask)
    following, wanted, mask = next_frame(images, 0.5 * images + pattern)
    stuck = masked_l1(0.5 * following + pattern, wanted, mask)
    assert steady < 0.05
    assert stuck > 10 * steady
    flow = synthetic_flow(images)
    assert flow.shape == (2, 64, 64, 2)
    assert 1 < float(flow.std()) < 20
    assert float((flicker(images) - images).abs().mean()) < 0.08


def test_the_schedule_is_constant_then_linear() -> None:
    schedule = Schedule(RunConfig(images=100, decay_images=40))
    assert [schedule.rate(n) for n in (0, 60, 80, 90, 100)] == pytest.approx([1, 1, 0.5, 0.25, 0])
    assert not schedule.done(99)
    assert schedule.done(100)
    assert Schedule(RunConfig(images=10, decay_images=0)).rate(9) == 1.0


def test_a_schedule_by_the_clock_counts_the_time_before() -> None:
    schedule = Schedule(RunConfig(images=100, decay_images=50, hours=2.0), elapsed=5400.0)
    assert schedule.progress(0) == pytest.approx(0.75, abs=0.01)
    assert schedule.rate(0) == pytest.approx(0.5, abs=0.02)
    assert schedule.done(10**9) is False
    assert schedule.seconds_left(0, 1.0) == pytest.approx(1800, abs=10)


def test_devices_and_precisions_are_as_asked_or_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="unknown device 'tpux': use auto, cpu"):
        choose_device("tpux")
    with pytest.raises(UsageError, match=r"device 'gpu' \(Intel\) is for conversions only"):
        choose_device("gpu")
    with pytest.raises(UnavailableError, match="fp16 training needs a GPU"):
        choose_precision(RunConfig(device="cpu", precision="fp16"))
    if not torch.cuda.is_available():
        with pytest.raises(UnavailableError, match="no device cuda"):
            choose_device("cuda")
    assert choose_precision(RunConfig(device="cpu", precision="fp32")).name == "fp32"


def test_each_process_of_a_training_takes_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(name, 1)) for name in ("auto", "cuda", "cuda:0")] == [
        "cuda:1",
        "cuda:1",
        "cuda:0",
    ]
    with pytest.raises(UnavailableError, match="no device cuda:2: 2 CUDA devices are visible"):
        choose_device("auto", 2)


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
