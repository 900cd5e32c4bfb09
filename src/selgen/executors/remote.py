"""What a worker on another machine does with a run, and what it says when it cannot."""

from __future__ import annotations

import pickle
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selgen import record
from selgen.executors import parcels
from selgen.storage import Unusable, watched

if TYPE_CHECKING:
    from selgen.plan import Job

VISIBLE_SECONDS = 60.0
"""Longest wait until a file that another machine wrote is seen here: network file systems remember what was missing."""
Reply = dict[str, Any]
"""`refused`: why neither this run nor another can be carried out there. `needs`: that it must be sent the results of
the runs before it. `results`: its directory, None if that lies on the shared path."""


@dataclass(frozen=True)
class Errand:
    """A run for another machine.

    Attributes:
        out_dir: The sweep's directory, as it is called where the sweep was started.
        probe: Name of a file in it: a machine that sees it shares the path.
        must_share: Whether a machine that does not is refused.
        threads: That the run computes with.
        sent: Whether the results of the runs before it come along.
    """

    job: Job
    out_dir: Path
    probe: str
    must_share: bool
    threads: int
    sent: bool = False

    @property
    def before(self) -> list[str]:
        """The runs whose results it needs."""
        return [name for name in (self.job.first, self.job.parent) if name is not None]

    def packed(self) -> bytes:
        return pickle.dumps(self)


@contextmanager
def probe(out_dir: Path) -> Iterator[str]:
    """A file by which another machine sees whether it shares the directory; gone at the end."""
    path = out_dir / f".shared-{uuid.uuid4().hex}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def entry() -> Callable[..., Reply]:
    """The function that workers call, with an errand and what is sent with it.

    It is made here, so that its code travels with it: a worker that has no selgen can still say so.
    """
    ours = version("selgen")

    def carry_out(errand: bytes, *inputs: bytes) -> dict[str, Any]:
        import importlib.metadata
        import socket
        import sys

        where = f"{socket.gethostname()} ({sys.executable})"
        try:
            from selgen.executors import remote
            from selgen.run import execute
        except ImportError as error:
            return {
                "refused": f"The worker on {where} should have selgen {ours}, found: {error}. Install it there as it "
                "is installed here (pip install -c constraints.txt '.'), or leave that machine out of the cluster."
            }
        theirs = importlib.metadata.version("selgen")
        if theirs != ours:
            return {
                "refused": f"The worker on {where} should have selgen {ours}, found {theirs}. Install the same version "
                "there, or leave that machine out of the cluster: one report must not mix two."
            }
        return remote.carry_out(errand, inputs, execute)

    return carry_out


def carry_out(packed: bytes, inputs: tuple[bytes, ...], execute: Callable[[Job, Path], object]) -> Reply:
    """Carry out an errand in the sweep's directory, or in one of this machine's own if it does not share that."""
    import torch

    errand: Errand = pickle.loads(packed)
    torch.set_num_threads(errand.threads)
    try:
        with watched(errand.out_dir):
            shared = _is_there(errand.out_dir / errand.probe)
        if not shared and errand.must_share:
            return {"refused": _not_shared(f"--out {errand.out_dir}")}
        missing = _missing_paths(errand.job)
        if missing:
            return {"refused": _not_shared(", ".join(missing))}
        if shared:
            for name in errand.before:
                wait_for(errand.out_dir / name)
            execute(errand.job, errand.out_dir)
            return {"results": None}
        if errand.before and not errand.sent:
            return {"needs": True}
        with tempfile.TemporaryDirectory(prefix="selgen-") as place:
            with watched(Path(place)):
                for name, parcel in zip(errand.before, inputs, strict=True):
                    parcels.unpack(parcel, Path(place) / name)
            execute(errand.job, Path(place))
            return {"results": parcels.pack(Path(place) / errand.job.run_id)}
    except Unusable as error:
        return {"refused": f"On {socket.gethostname()}: {error}"}


def wait_for(run_dir: Path) -> None:
    """Wait until a run that another machine finished is seen to be finished here, or for `VISIBLE_SECONDS`."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not record.is_finished(run_dir) and time.monotonic() < deadline:
        time.sleep(0.2)


def _is_there(path: Path) -> bool:
    """Whether a file exists; unlike `Path.is_file`, what cannot be asked is an error.

    Raises:
        OSError: the path cannot be read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _missing_paths(job: Job) -> list[str]:
    """The model and the data of a run that lie on no path of this machine."""
    from selgen.spec import make_setting

    setting = job.spec.setting
    named = {"the model": job.start.path}
    named |= {f"setting.{option}": setting.get(option) for option in make_setting(setting).paths}
    return [f"{what} {path}" for what, value in named.items() for path in _paths(value) if not Path(path).exists()]


def _paths(value: Any) -> Iterator[str]:
    """The absolute paths in an option; hub ids and names are none."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, str) and value.startswith("/"):
        yield value


def _not_shared(what: str) -> str:
    return (
        f"{what} should be a path that all machines share, found nothing there on {socket.gethostname()}. Mount it "
        "there under the same name, or choose one that is shared; selgen's own models lie in XDG_CACHE_HOME."
    )
