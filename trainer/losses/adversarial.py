"""The adversarial losses, and the gradient penalty of a discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cgconvert.errors import UsageError
from trainer.compute.precision import widened
from trainer.networks.discriminators import Logits
from trainer.networks.joining import split_logits

GAN_MODES = ("lsgan", "vanilla", "hinge", "wgan")


def gan_loss(logits: Logits, real: bool, mode: str, for_generator: bool = False) -> Tensor:
    """How far a discriminator's logits are from saying `real`: a scalar, the mean over all patches.

    The modes are:

    - lsgan: the squared distance to 1 or 0 (Mao et al. 2017).
    - vanilla: the cross-entropy (Goodfellow et al. 2014).
    - hinge: max(0, 1 -+ logit), and -logit for a generator (Lim and Ye 2017).
    - wgan: -+ logit, to be used with a gradient penalty (Arjovsky et al. 2017).

    Logits of several scales give the mean over the scales. The loss is computed in float32 at least. Raises
    `UsageError` for an unknown mode.
    """
    if not isinstance(logits, Tensor):
        return torch.stack([gan_loss(part, real, mode, for_generator) for part in logits]).mean()
    logits = widened(logits)
    if mode == "lsgan":
        return F.mse_loss(logits, torch.full_like(logits, float(real)))
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
    if mode == "hinge":
        if for_generator:
            return -logits.mean()
        return F.relu(1 - logits if real else 1 + logits).mean()
    if mode == "wgan":
        return -logits.mean() if real else logits.mean()
    raise UsageError(f"unknown gan mode {mode!r}; known: {', '.join(GAN_MODES)}")


def hinge_of_halves(logits: Logits) -> Tensor:
    """A discriminator's hinge loss for a batch whose first half is real and whose second half is fake."""
    on_real, on_fake = split_logits(logits)
    return gan_loss(on_real, True, "hinge") + gan_loss(on_fake, False, "hinge")


def r1_penalty(logits: Logits, images: Tensor) -> Tensor:
    """Half the squared gradient of the logits at real images, mean over the batch (Mescheder et al. 2018).

    `images` must require a gradient and be what `logits` were computed from.
    """
    total = logits.sum() if isinstance(logits, Tensor) else torch.stack([x.sum() for x in logits]).sum()
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    return 0.5 * widened(gradient).square().sum(dim=(1, 2, 3)).mean()
