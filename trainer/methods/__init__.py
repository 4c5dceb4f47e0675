"""The methods of training; `build_method` is the only list of them."""

from __future__ import annotations

from cgconvert.errors import UsageError
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.methods.base import Losses, Method
from trainer.methods.cut import Cut
from trainer.methods.cyclegan import CycleGan
from trainer.methods.distill import Distill
from trainer.methods.gan import Gan
from trainer.methods.one_sided import OneSided
from trainer.methods.pix2pix import Pix2Pix

METHODS: dict[str, type[CycleGan | Pix2Pix | Cut | Distill | OneSided | Gan]] = {
    "cyclegan": CycleGan,
    "pix2pix": Pix2Pix,
    "cut": Cut,
    "distill": Distill,
    "one_sided": OneSided,
    "gan": Gan,
}


def build_method(config: Config, precision: Precision, distributed: bool = False) -> Method:
    """The configured method with fresh weights. Raises `UsageError` for one that is not known."""
    try:
        method = METHODS[config.run.method]
    except KeyError:
        known = ", ".join(METHODS)
        raise UsageError(f"unknown method {config.run.method!r}; known: {known}") from None
    return method(config, precision, distributed)


__all__ = ["METHODS", "Losses", "Method", "build_method"]
