"""Finds what has gone wrong with a training: NaN, a discriminator that always wins, results that fade."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DISC_WINS = {"lsgan": 0.005, "vanilla": 0.02, "hinge": 0.02, "wgan": float("-inf")}
"""The loss of a discriminator below which it is almost never wrong, by `loss.gan`."""

WINDOW = 20
"""Log lines in a row that must show a winning discriminator before it is called a collapse."""

EARLY = 1000
"""Images before which results that have never had contrast are a beginning, not a collapse."""

FADED = 0.15
"""Share of the sources' contrast below which results have faded."""

_PARTS = ("disc_real", "disc_fake")
_WINS = f"a discriminator has been right almost always for {WINDOW} log lines"


@dataclass
class Health:
    """What losses and results have shown so far; part of a run's state.

    `disc_wins` counts the log lines in a row in which a discriminator was almost never wrong, and `faded`, by
    generator, the sample grids in a row of almost one colour. While one of them counts, the state is not kept
    as one to go back to. `vivid` names the generators whose results have had contrast. `anchored` says that
    a distance to the truth or to a teacher carries the training, which no winning discriminator then ends.
    """

    gan: str
    disc_wins: int = 0
    anchored: bool = False
    faded: dict[str, int] = field(default_factory=dict)
    vivid: list[str] = field(default_factory=list)
    rolled_back: bool = False

    def look_at_losses(self, losses: Mapping[str, float]) -> str | None:
        """What mean losses of a log line show to be wrong, or None."""
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            return f"loss {', '.join(bad)} is not a number"
        discs = _discriminators(losses)
        winning = bool(discs) and min(discs) < DISC_WINS[self.gan]
        self.disc_wins = self.disc_wins + 1 if winning else 0
        self.anchored = losses.get("l1", 0.0) > 0
        if self.disc_wins >= WINDOW and not self.anchored:
            return f"{_WINS} (loss {min(discs):.4f})"
        return None

    def warning(self) -> str | None:
        """A warning that the last log line gives reason for; each is given once, and nothing is stopped."""
        if self.anchored and self.disc_wins == WINDOW:
            return f"{_WINS}; the L1 loss carries the training on, but the adversarial loss adds little now"
        return None

    def look_at_results(
        self, name: str, results: tuple[float, float], sources: tuple[float, float], images: int
    ) -> str | None:
        """What a sample grid of a generator shows to be wrong, or None.

        `results` and `sources` are the contrast of the pictures: the mean standard deviation within them, and
        the standard deviation of their mean colours, both in [0, 1]. `images` have been seen so far.
        """
        (spread, colours), (source_spread, source_colours) = results, sources
        flat = spread < FADED * source_spread
        same = source_colours > 0.02 and colours < FADED * FADED * source_colours
        faded = flat or same
        if not faded and name not in self.vivid:
            self.vivid.append(name)
        counts = faded and (name in self.vivid or images >= EARLY)
        self.faded[name] = self.faded.get(name, 0) + 1 if counts else 0
        if self.faded[name] >= 2:
            if flat:
                return (
                    f"{name}'s results have lost their contrast ({spread:.3f}, sources {source_spread:.3f})"
                )
            return f"{name}'s results have become alike ({colours:.3f}, sources {source_colours:.3f})"
        return None

    @property
    def good(self) -> bool:
        """Whether the state is worth going back to."""
        return (self.anchored or self.disc_wins < WINDOW // 2) and not any(self.faded.values())

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _discriminators(losses: Mapping[str, float]) -> list[float]:
    """The loss of each discriminator. Where it is logged in two parts, their mean is what counts.

    A single part says nothing, since fakes may be easy to tell while real pictures are not.
    """
    whole = [v for name, v in losses.items() if name.startswith("disc") and name not in _PARTS]
    parts = [losses[name] for name in _PARTS if name in losses]
    return whole + ([sum(parts) / len(parts)] if parts else [])


def advice(gan: str) -> str:
    """What to try, for the message that ends a run."""
    return (
        "lower optimizer.lr or optimizer.disc_lr, turn on loss.r1 = 1.0 or loss.diffaugment, "
        f"try another loss.gan than {gan}, or run.precision = 'fp32'"
    )
