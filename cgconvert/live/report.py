"""What a live conversion has done: counts, rates and latencies."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

KEPT = 20_000
"""Latencies that are kept, the newest; the memory does not grow with the time."""


@dataclass
class LiveReport:
    """The outcome.

    Latencies are milliseconds from when a picture came (of a file: was due) to when its result was shown or
    sent. `dropped` pictures gave way to newer ones, `lost` results found their stream broken.
    """

    source: str
    output: str
    model: str
    size: tuple[int, int]
    seconds: float = 0.0
    pictures_in: int = 0
    pictures_out: int = 0
    dropped: int = 0
    lost: int = 0
    reconnections: int = 0
    source_rate: float = 0.0
    rate: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    work_sizes: list[tuple[int, int]] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


class Latencies:
    """Latencies in seconds, from whatever thread."""

    def __init__(self) -> None:
        self.count = 0
        self.values: deque[float] = deque(maxlen=KEPT)
        self.recent: deque[float] = deque(maxlen=50)
        self.most = 0.0
        self.lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """One more."""
        with self.lock:
            self.count += 1
            self.values.append(seconds)
            self.recent.append(seconds)
            self.most = max(self.most, seconds)

    def now(self) -> float | None:
        """The median of the last ones in milliseconds; None without any."""
        with self.lock:
            return float(np.median(self.recent)) * 1000 if self.recent else None

    def describe(self) -> dict[str, float]:
        """Median, 95th percentile and maximum, in milliseconds."""
        with self.lock:
            if not self.values:
                return {}
            median, high = np.percentile(np.array(self.values), [50, 95]) * 1000
            return {
                "median": round(float(median), 1),
                "p95": round(float(high), 1),
                "max": round(self.most * 1000, 1),
            }
