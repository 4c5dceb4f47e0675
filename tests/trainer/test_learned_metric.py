"""The learned metric: nearer for what is alike, and precision and recall as they are defined."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgconvert.errors import UsageError
from tests.trainer.conftest import draw
from trainer.metrics.learned import LearnedMetric, share_inside


def test_precision_and_recall_are_their_definition() -> None:
    # Points on a line at distance 1; the third nearest neighbour of the ends is 3 away, of the middle ones 2.
    reference = np.arange(6.0)[:, None]
    samples = np.array([[-3.0], [-3.1], [2.5], [8.0], [8.2]])
    assert share_inside(samples, reference) == 3 / 5
    assert share_inside(reference, reference) == 1.0
    pair = np.array([[0.0], [1.0]])
    assert share_inside(np.array([[1.9], [2.1]]), pair) == 0.5, "two points have one neighbour each"


def test_pictures_of_one_kind_are_nearer() -> None:
    random = np.random.default_rng(0)
    warm = [draw(random, True, (48, 64)) for _ in range(12)]
    cold = [draw(random, False, (48, 64)) for _ in range(6)]
    metric = LearnedMetric(torch.device("cpu"))
    near, far = metric.scores(warm[:6], warm[6:]), metric.scores(warm[:6], cold)
    assert near.distance < 0.3 * far.distance
    assert near.spread > 1e-3
    static = [random.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(6)]
    assert metric.scores(static, warm[6:]).recall == 0.0
    assert near.recall > 0.5
    assert metric.features(warm[:2]).shape == (2, 1280)
    joined, alone = metric.features(warm)[:9], metric.features(warm[:9])
    assert np.allclose(joined, alone, atol=1e-4), "whatever the batches"


def test_one_picture_is_no_set() -> None:
    with pytest.raises(UsageError, match="the learned metric needs at least 2 pictures a side"):
        LearnedMetric(torch.device("cpu")).scores([np.zeros((32, 32, 3), np.uint8)], [])
