"""The learning rate, and the end of a run."""

from __future__ import annotations

import pytest

from trainer.config import RunConfig
from trainer.runs.schedule import Schedule


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
