"""Ray: one task per run, on every machine of a cluster; machines may come and go."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from selgen.blocks import ExecutorSpec
from selgen.config import ConfigError
from selgen.executors import parcels, remote
from selgen.executors.schedule import CannotGoOn, Done, Event, Executor, Lost, Progress

if TYPE_CHECKING:
    from selgen.plan import Job

PATIENCE = 900.0
"""Seconds that a run waits while no machine of the cluster is large enough for it: one may be on its way."""
_POLL_SECONDS = 1.0


class Ray(Executor):
    """A Ray cluster: the one at RAY_ADDRESS, else the one started on this machine, else a new one on it alone.

    Args:
        spec: What each run gets.
        out_dir: Where the runs' directories go. Machines that share the path write there, others send theirs back.
        workers: Most runs at a time; None leaves it to Ray.

    Raises:
        ConfigError: ray is not installed.
    """

    advice = "If machines ran out of memory, give each run more of it, e.g. executor.memory_gb=16."

    def __init__(self, spec: ExecutorSpec, out_dir: Path, workers: int | None) -> None:
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise ConfigError(
                [
                    f"executor.name ray needs the package ray, found: {error}. Install it here and on every machine "
                    "of the cluster: pip install -c constraints.txt '.[ray]'."
                ]
            ) from error
        self._ray, self._spec = ray, spec
        self._out_dir = out_dir.resolve()
        self._workers = workers
        self._out: dict[Any, remote.Errand] = {}
        self._open = ExitStack()
        self._since = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if not self._ray.is_initialized():
                # Ray reports what is done with it to its makers unless it is told not to.
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                try:
                    _reach(os.environ.get("RAY_ADDRESS", ""))
                    self._ray.init(log_to_driver=False, logging_level=logging.ERROR)
                except (OSError, RuntimeError, ValueError) as error:
                    raise CannotGoOn(
                        f"RAY_ADDRESS should be that of a running cluster, found {os.environ.get('RAY_ADDRESS')!r}: "
                        f"{error}. Start one (ray start --head), or unset it for one on this machine alone."
                    ) from error
                stack.callback(self._ray.shutdown)
            self._probe = stack.enter_context(remote.probe(self._out_dir))
            self._resources = self._needed()
            self._task = self._ray.remote(max_retries=0, **self._resources)(remote.entry())
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        for ref in self._out:
            self._ray.cancel(ref, force=True)
        self._open.close()

    @property
    def free(self) -> float:
        return float("inf") if self._workers is None else self._workers - len(self._out)

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._send(remote.Errand(job, self._out_dir, self._probe, must_share=False, threads=self._spec.num_cpus))
        self._since = time.monotonic()

    def _send(self, errand: remote.Errand, inputs: Sequence[Any] = ()) -> None:
        self._out[self._task.remote(errand.packed(), *inputs)] = errand

    def events(self) -> Iterator[Event]:
        ready, _ = self._ray.wait(list(self._out), timeout=_POLL_SECONDS)
        if not ready:
            self._make_sure_that_it_fits()
        for ref in ready:
            yield from self._settle(ref)

    def _settle(self, ref: Any) -> Iterator[Event]:
        failures = self._ray.exceptions
        errand = self._out.pop(ref)
        job = errand.job
        try:
            reply: remote.Reply = self._ray.get(ref)
        except (failures.NodeDiedError, failures.ObjectLostError):
            yield Lost(job, "its machine was lost", machine=True)
            return
        except failures.OutOfMemoryError:
            yield Lost(job, "its machine ran out of memory")
            return
        except failures.RayTaskError as error:
            yield Lost(job, f"{type(error.cause).__name__}: {error.cause}")
            return
        except failures.RayError as error:
            yield Lost(job, str(error).partition(". ")[0])
            return
        if "refused" in reply:
            raise CannotGoOn(reply["refused"])
        if "needs" in reply:
            parcel = [parcels.pack(self._out_dir / name, parcels.RESULT) for name in errand.before]
            self._send(replace(errand, sent=True), [self._ray.put(p) for p in parcel])
            return
        if reply["results"] is None:
            remote.wait_for(self._out_dir / job.run_id)
        else:
            parcels.unpack(reply["results"], self._out_dir / job.run_id)
        yield Progress(job.work)
        yield Done(job)

    def _needed(self) -> dict[str, float]:
        """What each task asks of Ray."""
        gpus = self._spec.num_gpus
        if gpus is None:
            gpus = min(1.0, self._ray.cluster_resources().get("GPU", 0.0))
        needed: dict[str, float] = {"num_cpus": self._spec.num_cpus, "num_gpus": gpus}
        if self._spec.memory_gb is not None:
            needed["memory"] = int(self._spec.memory_gb * 1e9)
        return needed

    def _make_sure_that_it_fits(self) -> None:
        """Ray waits for ever for a machine that is large enough, since one may be on its way.

        Raises:
            CannotGoOn: none has come for `PATIENCE` seconds.
        """
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        needed = {names[name]: amount for name, amount in self._resources.items()}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(machine.get(name, 0) >= amount for name, amount in needed.items()) for machine in machines):
            self._since = time.monotonic()
        elif time.monotonic() - self._since > PATIENCE:
            found = [{name: machine.get(name, 0) for name in needed} for machine in machines]
            raise CannotGoOn(
                f"Each run should fit a machine of the Ray cluster: it needs {needed}, found {found}. Lower "
                "executor.num_cpus, executor.num_gpus or executor.memory_gb, or add a larger machine."
            )


def _reach(address: str) -> None:
    """Ray itself tries for minutes before it says that nobody answers.

    Raises:
        OSError: nobody does at this host:port; other kinds of address are left to Ray.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=30).close()
