"""The patch-wise contrastive loss of CUT (Park et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compute.precision import widened


def patch_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding the place of each query among the keys of its image: (N,) of two (N, P, D).

    It is computed in float32 at least, under autocast too: a small temperature would magnify the rounding of
    half precision until it decides between places.
    """
    with torch.autocast(queries.device.type, enabled=False):
        logits = widened(queries) @ widened(keys.detach()).transpose(1, 2) / temperature
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[0], -1)
    return F.cross_entropy(logits.flatten(0, 1), own.flatten(), reduction="none").view(own.shape).mean(1)
