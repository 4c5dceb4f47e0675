"""The colour loss: what counts as kept, and the statistics that it moves colours by."""

from __future__ import annotations

import torch

from trainer.losses.reconstruction import colour_loss, tint_loss
from trainer.methods.domain_colours import DomainColours


def domain(mean: float, spread: float, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return mean + spread * torch.randn(4, 3, 32, 32, generator=random)


def test_moved_images_have_the_other_domains_mean_and_spread() -> None:
    colours = DomainColours()
    a, b = domain(0.2, 0.1, 1), domain(-0.3, 0.2, 2)
    for _ in range(3):  # the first steps count in full, as the weights are divided out
        colours.update("a", a)
        colours.update("b", b)
    moved = colours.moved(b, "b", "a")
    assert torch.allclose(moved.mean((0, 2, 3)), a.mean((0, 2, 3)), atol=1e-3)
    assert torch.allclose(moved.std((0, 2, 3)), a.std((0, 2, 3)), rtol=1e-2)
    assert colours.moved(b * 20, "b", "a").abs().max() == 1


def test_strokes_are_free_and_tints_are_not() -> None:
    wanted = torch.zeros(1, 3, 64, 64)
    strokes = torch.ones(1, 3, 64, 64)
    strokes[..., ::2] = -1  # as strong as can be, with the same means
    tint = wanted.clone()
    tint[:, 1] = 0.3
    assert colour_loss(strokes, wanted) < 1e-6
    assert torch.isclose(colour_loss(tint, wanted), torch.tensor(0.1))
    assert torch.isclose(colour_loss(tint[..., :8, :8], wanted[..., :8, :8]), torch.tensor(0.1))


def test_light_is_free_and_the_tints_of_small_squares_are_not() -> None:
    wanted = torch.full((1, 3, 16, 16), 0.1)
    lighter, specks = wanted.clone(), wanted.clone()
    lighter[..., :8, :] += 0.5
    specks[:, 0, :4, :4] += 0.9  # one square of sixteen, in one channel: 0.6, -0.3, -0.3 off in tint
    assert tint_loss(lighter, wanted) < 1e-6
    assert torch.isclose(tint_loss(specks, wanted), torch.tensor(0.4 / 16))
    assert colour_loss(specks, wanted) < 0.4 / 16 + 1e-6, "in larger squares a speck is lost among its like"
    assert torch.isclose(tint_loss(specks[..., :2, :2], wanted[..., :2, :2]), torch.tensor(0.4))


def test_statistics_survive_a_checkpoint() -> None:
    colours, again = DomainColours(), DomainColours()
    a, b = domain(0.2, 0.1, 1), domain(-0.3, 0.2, 2)
    colours.update("a", a)
    colours.update("b", b)
    again.load_state_dict(colours.state_dict(), torch.device("cpu"))
    assert torch.equal(again.moved(b, "b", "a"), colours.moved(b, "b", "a"))


def test_black_stays_black_and_what_is_light_moves() -> None:
    """Where the target has no black, such as paper, a source's black bars would become grey."""
    torch.manual_seed(0)
    colours = DomainColours()
    colours.update("a", torch.rand(4, 3, 16, 16) * 2 - 1)
    colours.update("b", torch.rand(4, 3, 16, 16) * 0.5 + 0.3)
    black, dark, grey = (torch.full((1, 3, 4, 4), light * 2 - 1) for light in (0.0, 0.125, 0.5))
    assert torch.equal(colours.moved_but_black(black, "a", "b"), black)
    assert colours.moved(black, "a", "b").min() > 0
    half_way = (dark + colours.moved(dark, "a", "b")) / 2
    assert torch.allclose(colours.moved_but_black(dark, "a", "b"), half_way, atol=1e-6)
    assert torch.equal(colours.moved_but_black(grey, "a", "b"), colours.moved(grey, "a", "b"))
