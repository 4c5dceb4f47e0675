"""What `steady` asks for: how strongly results are made steady in time, and with what effort. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cgconvert.card import ModelCard
from cgconvert.errors import UsageError

AUTO_STRENGTH = 0.7
EXACT_FROM = 0.75
"""Strength from which motion is found the slow way."""


@dataclass(frozen=True)
class Steadiness:
    """How results are made steady: `strength` up to 1, `exact` whether motion is found the slow way."""

    strength: float
    exact: bool

    def describe(self) -> str:
        """One line for people."""
        return f"results steadied with strength {self.strength:g}, {'exact' if self.exact else 'fast'} motion"


def parse_steady(text: str) -> str | float:
    """`off`, `auto` or a number as `VideoOptions.steady` has it. Raises `UsageError`."""
    if text in ("off", "auto"):
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"`steady={text!r}` is unknown: use off, auto, or a number from 0 to 1") from None


def check_steady(asked: str | float) -> None:
    """Raise `UsageError` unless this is `off`, `auto` or a number from 0 to 1."""
    number = isinstance(asked, int | float) and math.isfinite(asked) and 0 <= asked <= 1
    if not number and asked not in ("off", "auto"):
        raise UsageError(f"`steady={asked!r}` is unknown: use off, auto, or a number from 0 to 1")


def choose_steadiness(asked: str | float, card: ModelCard) -> Steadiness | None:
    """How the results of a model are made steady; None if they stay as they are."""
    if asked == "auto":
        if card.architecture == "identity":
            return None
        asked = AUTO_STRENGTH
    if asked == "off" or not asked:
        return None
    strength = float(asked)
    return Steadiness(strength, strength >= EXACT_FROM)
