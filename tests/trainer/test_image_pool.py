"""The pool of earlier fakes."""

from __future__ import annotations

import torch

from trainer.methods.image_pool import ImagePool


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
