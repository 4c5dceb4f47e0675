"""Noticing that a training has gone wrong: NaN, a discriminator that wins for long, results that fade."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DISC_WINS = {
    "lsgan": 0.005,
    "vanilla": 0.02,
    "hinge": 0.02,
    "wgan": float("-inf"),
}  # below this the discriminator is hardly wrong
WINDOW = 20  # log lines in a row that must show the same before it is called a collapse
EARLY = 1000  # images, before which results that never had contrast are a beginning, not a collapse
FADED = 0.15  # share of the hold-out sources' spread, or colour range, below which results have faded
_PARTS = ("disc_real", "disc_fake")
_WINS = f"a discriminator has been right almost always for {WINDOW} log lines"


@dataclass
class Health:
    """Looks at losses and samples; `problem` says in words what was seen, or is None.

    `disc_wins` counts log lines in a row with a discriminator almost never wrong, `faded` sample
    grids in a row of almost one colour, by generator. A state with one of them raised
    is not kept as good. `vivid` are the generators whose results had contrast once. With `anchored`, a
    distance to the truth or to a teacher carries the training: a winning discriminator does not end it.
    """

    gan: str
    disc_wins: int = 0
    anchored: bool = False
    faded: dict[str, int] = field(default_factory=dict)
    vivid: list[str] = field(default_factory=list)
    rolled_back: bool = False

    def look_at_losses(self, losses: Mapping[str, float]) -> str | None:
        """Called for each log line with mean losses."""
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
        """What the last log line gives reason to say, though nothing is stopped for it; each once."""
        if self.anchored and self.disc_wins == WINDOW:
            return f"{_WINS}; the L1 loss carries the training on, but the adversarial loss adds little now"
        return None

    def look_at_results(
        self, name: str, results: tuple[float, float], sources: tuple[float, float], images: int
    ) -> str | None:
        """Called for each sample grid of a generator, with two figures for its results and for their sources.

        They are the standard deviation within pictures, and that of the mean colours over all of them.
        `images` have been seen so far.
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
        """Whether a state with these counts is worth going back to."""
        return (self.anchored or self.disc_wins < WINDOW // 2) and not any(self.faded.values())

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _discriminators(losses: Mapping[str, float]) -> list[float]:
    """The loss of each discriminator; of one whose loss is told in two parts, their mean.

    A single part says nothing: fakes may be easy to tell while real pictures are not.
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
