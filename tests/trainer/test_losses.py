"""The losses of discriminators and of their features, each against its definition."""

from __future__ import annotations

import pytest
import torch

from cgconvert.errors import UsageError
from trainer.losses.adversarial import gan_loss, r1_penalty
from trainer.losses.features import matching_loss, mean_matching_loss


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
