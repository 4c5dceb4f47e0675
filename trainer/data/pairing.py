"""Pairs from two parallel folders, found by name; those that do not fit are refused before anything runs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cgconvert.errors import UsageError
from trainer.config import DataConfig
from trainer.data.augment import WHOLE, SizeRule, prepared_size
from trainer.data.pictures import Domain, Picture

log = logging.getLogger("trainer")


def matched(a: Domain, b: Domain) -> tuple[Domain, Domain]:
    """Both domains reduced to the names they share, in one order.

    A name is the path below the domain's folder without its suffix. Raises `UsageError` where no name is
    shared, or where several pictures have one name.
    """
    for domain in (a, b):
        _only_once(domain)
    by_name = {picture.name: picture for picture in b.pictures}
    shared = [picture for picture in a.pictures if picture.name in by_name]
    if not shared:
        raise UsageError(f"{a.where} and {b.where}: no file name is in both folders, so nothing is paired")
    alone = len(a.pictures) + len(b.pictures) - 2 * len(shared)
    if alone:
        log.warning("%d pictures in %s and %s have no partner, left out", alone, a.where, b.where)
    partners = tuple(by_name[picture.name] for picture in shared)
    return replace(a, pictures=tuple(shared)), replace(b, pictures=partners)


def _only_once(domain: Domain) -> None:
    counts = Counter(picture.name for picture in domain.pictures)
    twice = next((picture for picture in domain.pictures if counts[picture.name] > 1), None)
    if twice is not None:
        names = [p.path.name for p in domain.pictures if p.name == twice.name]
        raise UsageError(f"{twice.path.parent}: {' and '.join(names)} have one name; remove one of them")


def check_sizes(a: Sequence[Picture], b: Sequence[Picture], data: DataConfig, rule: SizeRule = WHOLE) -> None:
    """Raises `UsageError` that names the first pair whose training images would differ in size."""
    different = [
        (one, two)
        for one, two in zip(a, b, strict=True)
        if prepared_size(*one.size, data, rule) != prepared_size(*two.size, data, rule)
    ]
    if not different:
        return
    one, two = different[0]
    more = f" ({len(different) - 1} more pairs likewise)" if len(different) > 1 else ""
    raise UsageError(
        f"{one.path} is {one.size[0]}x{one.size[1]} and {two.path} {two.size[0]}x{two.size[1]}{more}: "
        f"with data.preprocess = '{data.preprocess}' the two of a pair need one size; "
        "resize them, or use resize_and_crop"
    )
