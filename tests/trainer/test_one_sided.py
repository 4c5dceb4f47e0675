"""One-sided translation: its step, its synthetic next frames, noise, and norms that are folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgconvert.errors import UsageError
from cgconvert.generators import build_generator
from cgconvert.models.loading import load_model
from tests.trainer.conftest import H2_TINY, SMALL, draw, write_run
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.exporting.export import export_model
from trainer.exporting.folding import fold_batch_norms
from trainer.losses.temporal import Change, draw_change
from trainer.methods import build_method
from trainer.methods.unpainting import unpainted
from trainer.networks.diffaugment import augment_alike, diff_augment
from trainer.runs.start import start
from trainer.storage.folder import RunFolder

CPU = torch.device("cpu")
ONE_SIDED: dict[str, Any] = {
    **SMALL,
    "run.method": "one_sided",
    "run.batch": 2,
    "data.crop_size": 64,
    "network.arguments": H2_TINY | {"norm": "batch"},
    "network.noise": 2,
    "loss.projected": 2.0,
    "loss.content": 0.4,
    "loss.colour": 1.5,
    "loss.tint": 1.0,
    "loss.temporal": 2.0,
    "loss.pool": 0,
}

LOSSES = {"gan", "projected", "content", "colour", "tint", "temporal", "disc", "projected_disc"}


def make(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build_method(Config().with_changes({**ONE_SIDED, **changes}), Precision(CPU, "fp32"))


def batch(seed: int = 1) -> Batch:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randint(0, 256, (2, 3, 64, 64), generator=random).byte() for name in ("a", "b")}


def test_a_step_has_every_loss_and_one_pass_of_the_generator() -> None:
    method = make()
    passes: list[int] = []
    method.generator.register_forward_hook(lambda _, inputs, output: passes.append(len(inputs[0])))
    losses = method.train_step(batch())
    assert set(losses) == LOSSES
    assert passes == [3], "both images, and one of them as the next frame"
    assert all(torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ("loss.projected", {"projected", "projected_disc"}),
        ("loss.lambda_gan", {"gan", "disc"}),
        ("loss.temporal", {"temporal"}),
        ("loss.colour", {"colour"}),
        ("loss.tint", {"tint"}),
        ("loss.content", {"content"}),
    ],
)
def test_parts_can_be_left_out(without: str, gone: set[str]) -> None:
    losses = make(**{without: 0.0}).train_step(batch())
    assert set(losses) == LOSSES - gone


def test_a_share_of_the_sources_are_targets_without_strokes() -> None:
    """They go through the generator smoothed; content and colours wanted of them are the targets' own."""
    method = make(**{"loss.repaint": 0.5})
    given: list[torch.Tensor] = []
    wanted: list[torch.Tensor] = []
    method.generator.register_forward_hook(lambda _, inputs, output: given.append(inputs[0]))
    losses = method._generator_losses
    method._generator_losses = lambda colours, *rest: wanted.append(colours) or losses(colours, *rest)
    images = batch()
    assert set(method.train_step(images)) == LOSSES
    source, target = (method.images(images[name]) for name in "ab")
    assert torch.equal(given[0][0, :3], source[0])
    assert torch.equal(wanted[0][1], target[1])
    repainted = given[0][1, :3]
    # White noise has more contrast in a window than what counts as an edge, so that not all of it goes.
    assert float(repainted.std()) < 0.8 * float(target[1].std())
    assert abs(float(repainted.mean() - target[1].mean())) < 0.02


def test_strokes_go_and_outlines_stay() -> None:
    """A black and a white half with stripes of a fifth of the range: the stripes go, the step stays."""
    columns = torch.arange(64)
    step = torch.where(columns < 32, -0.8, 0.8)
    stripes = torch.where(columns // 2 % 2 == 0, 0.1, -0.1)
    images = (step + stripes).expand(1, 3, 64, 64)
    smooth = unpainted(images)
    assert smooth.shape == images.shape and smooth.dtype == images.dtype
    left = smooth[0, :, :, 6:22].mean(dim=(0, 1))
    assert float(left.std()) < 0.2 * 0.1, "a fifth of the stripes at most"
    assert abs(float(left.mean()) + 0.8) < 0.02
    edge = smooth[0, :, :, 31:33].mean(dim=(0, 1))
    assert float(edge[1] - edge[0]) > 1.2, "three quarters of the step between two neighbours"


@pytest.mark.parametrize(("move", "wanted"), [(0.0, -0.2), (1.0, 0.4), (0.5, 0.1)])
def test_colours_move_as_far_as_is_asked_for(move: float, wanted: float) -> None:
    method = make(**{"loss.colour_move": move, "loss.diffaugment": []})
    random = torch.Generator().manual_seed(1)
    source, target = (torch.randn(2, 3, 64, 64, generator=random) * 0.1 + mean for mean in (-0.2, 0.4))
    colours = method._wanted_colours(source, target, 2)
    assert abs(float(colours.mean()) - wanted) < 0.01


def test_a_look_must_be_asked_for() -> None:
    with pytest.raises(UsageError, match=r"one_sided needs loss.projected or loss.lambda_gan"):
        make(**{"loss.projected": 0.0, "loss.lambda_gan": 0.0})


def test_norms_stand_after_their_share_of_the_training() -> None:
    method = make(**{"network.norm_frozen": 0.5})
    norms = [m for m in method.generator.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 2 + 2 * H2_TINY["blocks"] + 2
    method.set_progress(0.49)
    before = norms[0].running_mean.clone()
    method.train_step(batch())
    assert not torch.equal(norms[0].running_mean, before)
    method.set_progress(0.5)
    before = norms[0].running_mean.clone()
    weight = norms[0].weight.detach().clone()
    method.train_step(batch())
    assert torch.equal(norms[0].running_mean, before)
    assert not torch.equal(norms[0].weight, weight), "factor and offset go on learning"
    again = make(**{"network.norm_frozen": 0.5})
    again.load_state_dict(method.state_dict())
    again.set_progress(0.2)  # the run has been made longer
    assert not any(m.training for m in again.generator.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_the_next_frame_moves_noise_and_picture_together() -> None:
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    noise = torch.rand(1, 2, 32, 32) * 2 - 1
    flow = torch.zeros(1, 32, 32, 2)
    flow[..., 0] = 3
    change = Change(flow, torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    following, mask = change.next_frame(images, noise, 0.0)
    assert torch.allclose(following[:, 3:, :, :-3], noise[..., 3:], atol=1e-5)
    # Flicker changes the light by up to four percent, so only near.
    assert float((following[:, :3, :, :-3] - images[..., 3:]).abs().max()) < 0.2
    assert mask[0, 0, 0].tolist() == [1.0] * 29 + [0.0] * 3
    assert torch.allclose(change.wanted(images)[..., :-3], images[..., 3:], atol=1e-5)


def test_light_is_followed_by_the_wanted_result_and_not_by_the_noise() -> None:
    results = torch.rand(2, 3, 16, 16) * 2 - 1
    still = torch.zeros(2, 16, 16, 2)
    gain = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1)
    faded = Change(still, gain, torch.zeros(2, 1, 1, 1)).wanted(results)
    assert torch.equal(faded[0], torch.full((3, 16, 16), -1.0)), "black"
    assert torch.allclose(faded[1], (results[1] + 1) / 2 - 1, atol=1e-5)
    flashed = Change(still, torch.ones(2, 1, 1, 1), torch.ones(2, 1, 1, 1)).wanted(results)
    assert torch.allclose(flashed, torch.ones_like(results))
    noise = torch.rand(2, 1, 16, 16)
    following, _ = Change(still, gain, torch.zeros(2, 1, 1, 1)).next_frame(results, noise, 0.0)
    assert torch.allclose(following[:, 3:], noise, atol=1e-5)


def test_changes_are_motion_grain_and_light_in_their_shares() -> None:
    torch.manual_seed(3)
    change = draw_change(torch.zeros(4000, 3, 16, 16))
    moving = change.flow.abs().amax((1, 2, 3)) > 0
    gain = change.gain.expand(-1, 1, 16, 16)
    lit = (gain.amin((1, 2, 3)) < 1) | (change.flash.amax((1, 2, 3)) > 0)
    assert 0.46 < moving.float().mean() < 0.53
    assert 0.22 < lit.float().mean() < 0.28
    assert not (moving & lit).any()
    black = gain.amax((1, 2, 3)) == 0
    bars = (gain.amax((1, 2, 3)) == 1) & (gain.amin((1, 2, 3)) == 0)
    assert 0.02 < black.float().mean() < 0.06
    assert 0.05 < bars.float().mean() < 0.10
    edges = [gain[bars][:, 0, 0, 8], gain[bars][:, 0, -1, 8], gain[bars][:, 0, 8, 0], gain[bars][:, 0, 8, -1]]
    assert all(float((edge == 0).float().mean()) > 0.15 for edge in edges), "at each of the four edges"


def test_batches_are_augmented_alike() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    names = ["color", "translation", "cutout"]
    torch.manual_seed(0)
    one, two = augment_alike([images, images.clone()], names)
    assert torch.equal(one, two)
    torch.manual_seed(0)
    assert torch.equal(diff_augment(images, names), one)
    assert not torch.equal(diff_augment(images, names), one), "the next draw is another one"
    last = images.contiguous(memory_format=torch.channels_last)
    assert diff_augment(last, names).is_contiguous(memory_format=torch.channels_last)
    assert diff_augment(images, ["translation"]).is_contiguous()


GENERATORS = [
    ("h2", {**H2_TINY, "norm": "batch", "in_channels": 5}),
    ("resnet", {"ngf": 4, "blocks": 2, "norm": "batch"}),
    ("resnet", {"ngf": 4, "blocks": 1, "norm": "batch", "upsampling": "resize", "padding": "zero"}),
    ("mobile_resnet", {"ngf": 4, "blocks": 2, "norm": "batch"}),
    ("mobile_resnet", {"ngf": 4, "blocks": 1, "norm": "batch", "padding": "zero"}),
]


@pytest.mark.parametrize(("architecture", "arguments"), GENERATORS)
def test_folded_norms_are_the_same_function(architecture: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = build_generator(architecture, arguments)
    images = torch.rand(2, arguments.get("in_channels", 3), 32, 32) * 2 - 1
    for _ in range(3):
        network(images)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    network.eval()
    plain, weights = fold_batch_norms(architecture, arguments, network.state_dict())
    folded = build_generator(architecture, plain).eval()
    folded.load_state_dict(weights)
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.InstanceNorm2d) for m in folded.modules())
    with torch.no_grad():
        assert float((folded(images) - network(images)).abs().max()) < 1e-5


def test_what_has_no_batch_norm_is_left_alone() -> None:
    network = build_generator("h2", H2_TINY)
    arguments, weights = fold_batch_norms("h2", H2_TINY, network.state_dict())
    assert arguments == H2_TINY
    assert weights.keys() == network.state_dict().keys()


def test_a_run_is_exported_without_norms_and_with_its_noise(tmp_path: Path, domains: dict[str, str]) -> None:
    changes = {**ONE_SIDED, **domains, "run.images": 8, "run.decay_images": 4, "watch.sample_every": 4}
    folder = RunFolder(write_run(tmp_path / "run", changes))
    training = start(folder)
    card = export_model(folder.checkpoint, tmp_path / "model.safetensors", calibrated=True)
    assert card.noise == {"channels": 2, "seed": 0}
    assert card.arguments == H2_TINY | {"in_channels": 5, "norm": "none"}
    model = load_model(tmp_path / "model.safetensors")
    picture = draw(np.random.default_rng(7), True)
    plain = export_model(folder.checkpoint, tmp_path / "plain.safetensors", precision="fp32")
    result = load_model(tmp_path / "plain.safetensors").convert(picture)
    shown = training.method.averaged("gen_ab").convert(picture)
    assert int(np.abs(result.astype(int) - shown.astype(int)).max()) <= 1
    assert plain.weights_sha256 != card.weights_sha256
    assert model.convert(picture).shape == picture.shape


def test_scales_of_each_domain(domains: dict[str, str]) -> None:
    config = Config().with_changes({**SMALL, **domains, "data.scale_b": [1, 2.5]})
    assert config.data.of_domain("a") == config.data
    own = config.data.of_domain("b")
    assert (own.scale_min, own.scale_max) == (1.0, 2.5)
    for wrong in ([1.0], [2.0, 1.0], [0.0, 1.0]):
        with pytest.raises(UsageError, match=r"data.scale_a must be \[smallest, largest\]"):
            Config().with_changes({"data.scale_a": wrong})


def test_noise_is_refused_where_no_method_gives_it() -> None:
    with pytest.raises(
        UsageError, match=r"network.noise is for run.method one_sided or distill, not cyclegan"
    ):
        Config().with_changes({"network.noise": 2})


def test_a_student_is_given_its_teachers_noise(tmp_path: Path, domains: dict[str, str]) -> None:
    changes = {**ONE_SIDED, **domains, "run.images": 2, "run.decay_images": 0}
    teacher = RunFolder(write_run(tmp_path / "teacher", changes))
    start(teacher)
    export_model(teacher.checkpoint, tmp_path / "teacher.safetensors", precision="fp32")
    student = {
        **ONE_SIDED,
        "run.method": "distill",
        "loss.content": 0.0,
        "loss.colour": 0.0,
        "distill.teacher": str(tmp_path / "teacher.safetensors"),
    }
    torch.manual_seed(0)
    method = build_method(Config().with_changes(student), Precision(CPU, "fp32"))
    seen: dict[str, torch.Tensor] = {}
    networks = {"teacher": method.teacher.generator, "student": method.generator}  # type: ignore

    def keep(name: str) -> Any:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            # It returns nothing: a value would replace the network's input.
            seen.setdefault(name, inputs[0])

        return hook

    for name, network in networks.items():
        network.register_forward_pre_hook(keep(name))
    losses = method.train_step(batch())
    assert torch.equal(seen["teacher"], seen["student"])
    assert seen["student"].shape[1] == 5
    assert {"l1", "projected", "projected_disc", "temporal"} <= set(losses)
