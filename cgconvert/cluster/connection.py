"""The Ray cluster that a run uses: one that is there, or this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cgconvert.errors import UnavailableError, UsageError, first_line

STORE_BYTES = 256 << 20
"""Of Ray's object store, where this machine is the cluster: it holds a model and lists of files."""


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and what each worker gets of it.

    `address`: "auto" or "ray://HOST:PORT"; None: `RAY_ADDRESS` if it is set, else this machine alone.
    `workers` None: as many as the cluster has room for. `gpus` None: one for each worker where the cluster
    has any, else none; it may be a fraction. `cpus` are cores of each.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.workers} workers were asked for: at least one is needed")
        if self.cpus < 0 or (self.gpus is not None and self.gpus < 0):
            raise UsageError("a worker cannot have less than no core or GPU")
        if not self.cpus and not self.gpus:
            raise UsageError("a worker needs a core or a GPU")


@contextmanager
def connected(options: ClusterOptions) -> Iterator[Cluster]:
    """Connect to the cluster for this block. Where this process is connected already, that is used.

    Raises `UnavailableError` without Ray, or if the cluster does not answer.
    """
    if importlib.util.find_spec("ray") is None:
        raise UnavailableError("this needs Ray, which is not installed: pip install 'cgconvert[ray]'")
    import ray

    if ray.is_initialized():
        yield Cluster(options)
        return
    here: dict[str, Any] = {}
    if options.address is None and not os.environ.get("RAY_ADDRESS"):
        cores = max(os.cpu_count() or 1, round((options.workers or 1) * options.cpus))
        here = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    heard = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR, **here)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, heard)  # Ray takes it, and would end the run at once
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        where = options.address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise UnavailableError(f"no Ray cluster at {where}: {first_line(error)}") from error
    try:
        yield Cluster(options)
    finally:
        ray.shutdown()


class Cluster:
    """What a run needs of Ray: how many workers, and how to make one."""

    def __init__(self, options: ClusterOptions) -> None:
        import ray

        self.ray: Any = ray
        self.resources: dict[str, float] = ray.cluster_resources()
        self.cpus = options.cpus
        self.gpus = options.gpus
        if self.gpus is None:
            self.gpus = 1.0 if self.resources.get("GPU") else 0.0
        self.workers = options.workers or self._room()

    def _room(self) -> int:
        """How many workers the cluster has room for now, at least one: more machines may come."""
        rooms = [(self.resources.get("CPU", 0), self.cpus), (self.resources.get("GPU", 0), self.gpus or 0)]
        return max(1, min(int(there / each) for there, each in rooms if each))

    def start(self, kind: type, threads: int, *arguments: Any) -> Any:
        """Start a worker and return its handle. It waits for a machine that has room for it.

        A worker that dies is not started again by Ray: the pool does so, and gives out its work anew.
        """
        remote = self.ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_concurrency=threads)(kind)
        return remote.remote(*arguments)

    def describe(self) -> str:
        """One line for people."""
        room = f"{self.resources.get('CPU', 0):g} cores"
        if self.resources.get("GPU"):
            room += f", {self.resources['GPU']:g} GPUs"
        return f"{self.workers} worker{'s' * (self.workers != 1)} on a cluster of {room}"
