"""The engines of several devices as one in a report. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def described_together(
    told: Sequence[Mapping[str, Any]], shares: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What `EngineJob.describe` tells of each device, as one: of a single device itself, of none nothing.

    Of several it is that of the first, with the smallest batch, `notes` and then the notes of all by device,
    and `shares` as "devices": rows with the name of each "device" and what it has done.
    """
    if len(told) < 2:
        return dict(told[0]) if told else {}
    every = [
        f"{share['device']}: {note}" for one, share in zip(told, shares, strict=True) for note in one["notes"]
    ]
    batch = min(one["batch"] for one in told)
    return {**told[0], "batch": batch, "notes": [*notes, *every], "devices": [dict(row) for row in shares]}
