"""The methods: what each loss asks, what is computed, what ablations leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cgconvert.errors import UsageError
from tests.trainer.conftest import H2_TINY, SMALL
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.losses.adversarial import gan_loss
from trainer.losses.contrastive import patch_nce
from trainer.losses.features import matching_loss, mean_matching_loss
from trainer.methods import Method, base, build_method, cyclegan
from trainer.methods.cyclegan import CycleGan
from trainer.networks.taps import Taps

CPU = Precision(torch.device("cpu"), "fp32")
RESNET = {"network.generator": "resnet", "network.arguments": {"ngf": 4, "blocks": 2}}
UNET = {
    "network.generator": "unet",
    "network.arguments": {"ngf": 4, "depth": 5, "dropout": False, "norm": "batch"},
    "network.disc_norm": "batch",
}


def make(method: str, **settings: Any) -> Method:
    torch.manual_seed(0)
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    config = Config().with_changes({**SMALL, "run.method": method, **changes})
    return build_method(config, Precision(torch.device("cpu"), config.run.precision))


def batch(count: int = 1, edge: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(count, 3, edge, edge, generator=generator) * 2 - 1 for name in ("a", "b")}


def doubled(data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: images.double() for name, images in data.items()}


def calls(method: Method) -> dict[str, int]:
    """Images that passed through each network in one step."""
    counted = dict.fromkeys(method.networks, 0)
    handles = []
    for name, network in method.networks.items():

        def hook(module: nn.Module, inputs: Any, name: str = name) -> None:
            counted[name] += sum(x.shape[0] for x in inputs[:1] if isinstance(x, torch.Tensor))

        handles.append(network.register_forward_pre_hook(hook))
    method.train_step(batch())
    for handle in handles:
        handle.remove()
    return counted


def test_cyclegan_computes_each_result_once() -> None:
    # A to B, its way back, the cycle of the other side, and the identity: three images a generator.
    # The fake for the generator, then real and fake for itself: three a discriminator.
    assert calls(make("cyclegan")) == {"gen_ab": 3, "gen_ba": 3, "disc_a": 3, "disc_b": 3}
    assert calls(make("cyclegan", loss__lambda_identity=0.0))["gen_ab"] == 2


@pytest.mark.parametrize(
    ("ablation", "wanted"),
    [
        ("full", {"gan_ab", "gan_ba", "cycle_a", "cycle_b", "identity_a", "identity_b", "disc_a", "disc_b"}),
        ("cycle-alone", {"cycle_a", "cycle_b"}),
        ("gan-alone", {"gan_ab", "gan_ba", "disc_a", "disc_b"}),
        ("gan-forward", {"gan_ab", "gan_ba", "cycle_a", "disc_a", "disc_b"}),
        ("gan-backward", {"gan_ab", "gan_ba", "cycle_b", "disc_a", "disc_b"}),
    ],
)
def test_cyclegan_ablations(ablation: str, wanted: set[str]) -> None:
    method = make("cyclegan", loss__ablation=ablation)
    before = {name: [p.clone() for p in network.parameters()] for name, network in method.networks.items()}
    assert set(method.train_step(batch())) == wanted
    for name, network in method.networks.items():
        changed = [not torch.equal(p, q) for p, q in zip(network.parameters(), before[name], strict=True)]
        assert any(changed), f"{name} learns"


@pytest.mark.parametrize(
    ("ablation", "losses", "seen"),
    [
        ("full", {"gan", "l1", "disc_real", "disc_fake"}, 6),
        ("l1-alone", {"l1"}, 0),
        ("gan-alone", {"gan", "disc_real", "disc_fake"}, 3),
        ("cgan-alone", {"gan", "disc_real", "disc_fake"}, 6),
        ("l1-gan", {"gan", "l1", "disc_real", "disc_fake"}, 3),
    ],
)
def test_pix2pix_ablations(ablation: str, losses: set[str], seen: int) -> None:
    method = make(
        "pix2pix", loss__ablation=ablation, **{key.replace(".", "__"): v for key, v in UNET.items()}
    )
    assert set(method.train_step(batch())) == losses
    if seen:
        assert next(method.networks["disc"].parameters()).shape[1] == seen
    else:
        assert "disc" not in method.networks


def test_pix2pix_goes_either_way() -> None:
    given = {key.replace(".", "__"): value for key, value in UNET.items()}
    there, back = make("pix2pix", **given), make("pix2pix", data__direction="b_to_a", **given)
    assert (list(there.cards), there.main) == (["gen_ab"], "gen_ab")
    assert (list(back.cards), back.main) == (["gen_ba"], "gen_ba")
    data = batch()
    swapped = {"a": data["b"], "b": data["a"]}
    for name, value in there.train_step(data).items():
        torch.testing.assert_close(back.train_step(swapped)[name] if name == "gan" else value, value)
        break


def test_cyclegans_generators_are_named() -> None:
    method = make("cyclegan", network__reverse_generator="resnet", network__reverse_arguments={"ngf": 4})
    assert isinstance(method, CycleGan)
    assert method.generator_ab is method.networks["gen_ab"]
    assert method.generator_ba is method.networks["gen_ba"]
    assert method.main == "gen_ba", "the one that network.generator describes"
    assert [method.cards[name].architecture for name in ("gen_ab", "gen_ba")] == ["resnet", "h2"]
    card = method.averaged("gen_ab").card
    assert (card.source_domain, card.target_domain, card.size_multiple) == ("a", "b", 4)


def test_joined_passes_give_what_single_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    results, passes = [], []
    for alone in (False, True):
        for module in (base, cyclegan):
            monkeypatch.setattr(module, "mixes_images", lambda network, alone=alone: alone)
        method = make("cyclegan", loss__pool=0, run__precision="fp64")
        counted: list[int] = []
        for name in ("gen_ab", "disc_b"):
            method.networks[name].register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        results.append([method.train_step(batch()) for _ in range(2)])
        passes.append(len(counted))
    # Joined: the generator twice, the discriminator twice; one by one each of them three times.
    assert passes == [2 * 4, 2 * 6]
    for one, two in zip(*results, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "extra",
    [
        {"loss.gan": "vanilla"},
        {"loss.gan": "hinge"},
        {"loss.gan": "wgan", "loss.r1": 1.0, "loss.r1_every": 1},
        {"loss.r1": 1.0, "loss.r1_every": 1},
        {"loss.diffaugment": ["color", "translation", "cutout"]},
        {"loss.temporal": 10.0, "loss.temporal_ramp": 2},
        {"loss.feature_matching": 10.0},
        {"network.disc_scales": 2, "network.disc_layers": 1, "loss.feature_matching": 10.0, "loss.r1": 1.0},
        {"network.discriminator": "pixel"},
        {"run.precision": "bf16"},
        RESNET,
        {
            "network.generator": "pix2pixhd",
            "network.arguments": {"ngf": 4, "downs": 2, "blocks": 1, "local_blocks": 1},
            "network.disc_scales": 2,
            "network.disc_layers": 1,
        },
        {"network.generator": "resnet", "network.arguments": {"ngf": 4, "blocks": 1, "upsampling": "resize"}},
        {"network.reverse_generator": "resnet", "network.reverse_arguments": {"ngf": 4, "blocks": 1}},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["cyclegan", "pix2pix", "cut"])
def test_options_work_with_every_method(method: str, extra: dict[str, Any]) -> None:
    settings = {key.replace(".", "__"): value for key, value in extra.items()}
    made = make(method, **settings)
    made.precision = Precision(torch.device("cpu"), extra.get("run.precision", "fp32"))
    losses = made.train_step(batch(2))
    losses |= made.train_step(batch(2))
    assert all(torch.isfinite(value) for value in losses.values()), losses
    if "loss.r1" in extra:
        assert any(name.startswith("r1") for name in losses)
    if "loss.temporal" in extra:
        assert any(name.startswith("temporal") and value > 0 for name, value in losses.items())
    if "loss.feature_matching" in extra and method != "cut":
        assert any(name.startswith("features") for name in losses)


def test_bf16_stays_near_float32() -> None:
    plain = make("cyclegan", loss__pool=0)
    reduced = make("cyclegan", loss__pool=0)
    reduced.precision = Precision(torch.device("cpu"), "bf16")
    for name, value in plain.train_step(batch(edge=64)).items():
        assert reduced.train_step(batch(edge=64))[name] == pytest.approx(float(value), rel=0.05)
        break
    weight = next(reduced.networks["gen_ab"].parameters())
    assert weight.dtype == torch.float32, "weights stay float32"


def test_a_small_cyclegan_learns_to_bring_pictures_back() -> None:
    method = make("cyclegan", loss__ablation="cycle-alone", optimizer__lr=2e-3)
    smooth = {name: nn.functional.interpolate(x, size=32, mode="bicubic") for name, x in batch(2, 4).items()}
    data = {name: x.clamp(-1, 1) for name, x in smooth.items()}
    first = method.train_step(data)
    for _ in range(60):
        last = method.train_step(data)
    assert last["cycle_a"] < 0.6 * first["cycle_a"]
    assert last["cycle_b"] < 0.6 * first["cycle_b"]


def test_the_learning_rate_follows_the_factor() -> None:
    method = make("cyclegan", optimizer__disc_lr=1e-4)
    method.set_rate(0.25)
    assert method.optimizers["generators"].param_groups[0]["lr"] == pytest.approx(0.25 * 2e-4)
    assert method.optimizers["discriminators"].param_groups[0]["lr"] == pytest.approx(0.25 * 1e-4)


def test_changed_rates_hold_after_a_checkpoint() -> None:
    first, second = make("cyclegan"), make("cyclegan", optimizer__lr=1e-3, optimizer__disc_lr=3e-4)
    first.train_step(batch())
    second.load_state_dict(first.state_dict())
    second.set_rate(0.5)
    rates = {name: o.param_groups[0]["lr"] for name, o in second.optimizers.items()}
    assert rates == {"generators": 5e-4, "discriminators": 1.5e-4}
    assert second.optimizers["generators"].state_dict()["state"], "the moments came along"


def test_the_average_follows_the_generator() -> None:
    method = make("cyclegan", network__ema=0.9)
    start = [p.clone() for p in method.ema.generators["gen_ab"].parameters()]
    for _ in range(3):
        method.train_step(batch())
    now = list(method.networks["gen_ab"].parameters())
    for old, average, new in zip(start, method.ema.generators["gen_ab"].parameters(), now, strict=True):
        assert not average.requires_grad
        if not torch.equal(old, new):
            assert (average - old).abs().sum() > 0
            assert (average - new).abs().sum() < (old - new).abs().sum()


@pytest.mark.parametrize("scales", [1, 2])
@pytest.mark.parametrize(
    ("method", "disc", "suffix"), [("cyclegan", "disc_b", "_ab"), ("pix2pix", "disc", "")]
)
def test_feature_matching_costs_no_second_pass_of_the_fake(
    method: str, disc: str, suffix: str, scales: int
) -> None:
    options = {
        "network__disc_scales": scales,
        "network__disc_layers": 1,
        "loss__feature_matching": 10.0,
        "run__precision": "fp64",
    }
    trained, data = make(method, **options), doubled(batch())
    judge = trained.networks[disc]
    fake = trained.networks["gen_ab"](data["a"]).detach()
    passes = []
    first = next(module for module in judge.modules() if isinstance(module, nn.Conv2d))
    handle = first.register_forward_hook(lambda *_: passes.append(1))
    losses = trained.train_step(data)
    handle.remove()
    # The fake and the real picture for the generator's losses; both once more for the discriminator's own,
    # which cyclegan takes in one pass.
    assert len(passes) == (3 if method == "cyclegan" else 4)
    fresh = make(method, **options)  # with the weights of before the step
    if method == "pix2pix":
        fresh.networks[disc].load_state_dict(judge.state_dict())  # the generator meets the new one
        fake, real = (torch.cat([data["a"], images], 1) for images in (fake, data["b"]))
        matching = matching_loss
    else:
        real, matching = data["b"], mean_matching_loss
    judge = fresh.networks[disc]
    wanted = 10 * matching(judge.features(fake), judge.features(real))  # type: ignore[operator]
    torch.testing.assert_close(losses[f"features{suffix}"], wanted.detach())
    adversarial = gan_loss(judge(fake), True, "lsgan", for_generator=True)
    torch.testing.assert_close(losses[f"gan{suffix}"], adversarial.detach())


def test_cut_finds_its_own_place() -> None:
    vectors = nn.functional.normalize(torch.randn(2, 16, 8), dim=-1)
    found = patch_nce(vectors, vectors, 0.07)
    lost = patch_nce(vectors, vectors.roll(1, 1), 0.07)
    assert found.shape == (2,)
    assert (found < 0.5).all()
    assert (lost > found + 1).all()


def test_cut_needs_no_second_pass_for_the_source() -> None:
    method = make("cut")
    # Source and target go through once together; the features of their results are one more pass.
    assert calls(method)["gen_ab"] == 4
    assert set(method.train_step(batch())) == {"nce", "nce_identity", "gan", "disc"}
    assert set(make("cut", loss__nce_identity=False).train_step(batch())) == {"nce", "gan", "disc"}
    with pytest.raises(UsageError, match="layers are 0 to"):
        make("cut", loss__nce_layers=[0, 99])


def test_only_networks_without_taps_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(base, "compile_verified", lambda name, *rest: compiled.append(name))
    make("cyclegan", run__compile=True)
    assert compiled == ["gen_ab", "gen_ba", "disc_a", "disc_b"]
    compiled.clear()
    make("cut", run__compile=True)
    assert compiled == ["disc"], "the generator's layers are read by hooks"


def test_taps_stop_at_the_last_wanted_layer() -> None:
    network = make("cyclegan").networks["gen_ab"]
    taps = Taps(network, [0, 1, 3])
    images = batch()["a"]
    late: list[int] = []
    handle = network.get_submodule("tail").register_forward_hook(lambda *_: late.append(1))
    features = taps.encode(images)
    assert not late
    output, same = taps.run(images)
    handle.remove()
    assert late
    torch.testing.assert_close(output, network(images))
    assert features[0] is images
    for one, two in zip(features, same, strict=True):
        torch.testing.assert_close(one, two)


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        UsageError, match="crop_size 34 does not suit generator 'h2': it takes multiples of 4"
    ):
        make("cyclegan", data__crop_size=34)
    with pytest.raises(UsageError, match="crop_size 32 does not suit generator 'unet'"):
        make("pix2pix", network__generator="unet", network__arguments={"depth": 7})
    with pytest.raises(UsageError, match="generator 'identity' has nothing to learn"):
        make("cyclegan", network__generator="identity", network__arguments={})
    with pytest.raises(UsageError, match=r"32 is too small .*disc_layers 4 and disc_scales 1 it needs 48"):
        make("cyclegan", network__disc_layers=4)
    with pytest.raises(UsageError, match="as many channels"):
        make("cyclegan", network__arguments={**H2_TINY, "out_channels": 1})


def test_the_identity_keeps_the_published_weights() -> None:
    lambdas = {"loss__lambda_a": 3.0, "loss__lambda_b": 7.0, "loss__lambda_identity": 0.5}
    method = make("cyclegan", run__precision="fp64", **lambdas)
    assert isinstance(method, CycleGan)
    data = doubled(batch())
    gen_ab = method.networks["gen_ab"]
    wanted = 7.0 * 0.5 * (gen_ab(data["b"]) - data["b"]).abs().mean()
    torch.testing.assert_close(method.train_step(data)["identity_b"], wanted.detach(), rtol=1e-9, atol=0)
