"""KID and FID from a TorchScript Inception file that the user gives; figures compare by the same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cgconvert.errors import ModelError, UsageError, first_line
from cgconvert.host.files import file_sha256
from trainer.data.augment import Pixels

SUBSET, SUBSETS = 100, 100
Features = NDArray[np.float64]


@dataclass(frozen=True)
class InceptionScores:
    """KID with the standard deviation over subsets (both times 1000), FID, and what made the features."""

    kid: float
    kid_spread: float
    fid: float
    inception_sha256: str


class Inception:
    """A TorchScript file whose forward takes uint8 NCHW (or float in [0, 255]) and returns features (N, D).

    `sha256`, if given, must be the file's: TorchScript is code, and another file gives other numbers.
    Raises `ModelError`.
    """

    def __init__(self, path: Path, device: torch.device, sha256: str | None = None) -> None:
        try:
            self.sha256 = file_sha256(path)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
        if sha256 and sha256.lower() != self.sha256:
            raise ModelError(f"{path}: SHA-256 is {self.sha256}, expected {sha256}; get the file anew")
        try:
            self._network = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise ModelError(f"{path}: not a TorchScript file ({first_line(error, 100)})") from error
        self._device = device
        self._path = path

    @torch.inference_mode()
    def features(self, pictures: Sequence[Pixels]) -> Features:
        """Features of uint8 pictures, one at a time as sizes may differ: float64 (N, D)."""
        rows = []
        for pixels in pictures:
            images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device).permute(2, 0, 1)[None]
            try:
                # The files of this field return features rather than classes only when asked to.
                result = self._ask(images)
            except RuntimeError as error:
                raise ModelError(f"{self._path}: does not take uint8 images (1, 3, H, W)") from error
            rows.append(result.double().flatten().cpu().numpy())
        return np.stack(rows)

    def _ask(self, images: torch.Tensor) -> torch.Tensor:
        names = [argument.name for argument in self._network.forward.schema.arguments]
        if "return_features" in names:
            return self._network(images, return_features=True)
        return self._network(images)

    def scores(self, pictures: Sequence[Pixels], reference: Sequence[Pixels]) -> InceptionScores:
        """KID and FID of pictures against a reference set. Raises `UsageError` below 2 a side."""
        if min(len(pictures), len(reference)) < 2:
            raise UsageError("KID and FID need at least 2 pictures a side")
        ours, theirs = self.features(pictures), self.features(reference)
        mean, spread = kid(ours, theirs)
        return InceptionScores(1000 * mean, 1000 * spread, fid(ours, theirs), self.sha256)


def kid(first: Features, second: Features, seed: int = 0) -> tuple[float, float]:
    """Kernel Inception distance (Binkowski et al. 2018): mean and standard deviation over random subsets.

    Unbiased squared MMD with the kernel (x y / D + 1)^3; may be negative for equal distributions. Subsets are
    of 100 samples, of half the smaller set where that is less: subsets that are all the same have no spread.
    """
    smaller = min(len(first), len(second))
    size = min(SUBSET, max(2, smaller // 2))
    random = np.random.default_rng(seed)
    values = []
    for _ in range(SUBSETS):
        x = first[random.choice(len(first), size, replace=False)]
        y = second[random.choice(len(second), size, replace=False)]
        width = x.shape[1]
        xx, yy, xy = ((p @ q.T / width + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (size * (size - 1))
        values.append(within - 2 * xy.mean())
    return float(np.mean(values)), float(np.std(values))


def fid(first: Features, second: Features) -> float:
    """Frechet Inception distance (Heusel et al. 2017).

    The trace of the root of C1 C2 is the sum of singular values of A B^T with C1 = A^T A and C2 = B^T B,
    which needs no matrix root and stays real for fewer samples than dimensions.
    """
    mean = first.mean(0) - second.mean(0)
    a = (first - first.mean(0)) / np.sqrt(len(first) - 1)
    b = (second - second.mean(0)) / np.sqrt(len(second) - 1)
    values = np.linalg.svd(_reduced(a) @ _reduced(b).T, full_matrices=False, compute_uv=False)
    root = float(np.sum(values))
    return float(mean @ mean + (a * a).sum() + (b * b).sum() - 2 * root)


def _reduced(rows: Features) -> Features:
    """A matrix with the same A^T A and no more rows than columns: R of its QR decomposition."""
    return np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > rows.shape[1] else rows
