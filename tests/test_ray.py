"""A sweep over a Ray cluster of two nodes on this machine: each run once, with the records of a local sweep."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import fakes
from command import selgen
from selgen import record
from selgen.executors import ray as executor
from selgen.executors import remote
from selgen.executors.schedule import Done, Lost
from sweeps import a_sweep, comparable

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),  # one cluster
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files and processes to the end of Python
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TESTS = Path(__file__).parent
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        yield cluster
        cluster.shutdown()


@pytest.fixture(autouse=True)
def where(monkeypatch, tmp_path, cluster):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    init = ray.init

    def found_by_workers_too(**options):
        """Workers of a cluster see what is installed on their machines; here that is what the driver sees."""
        paths = [path for path in sys.path if Path(path).is_relative_to(tmp_path) or path == str(TESTS)]
        return init(job_config=ray.job_config.JobConfig(_py_driver_sys_path=paths), **options)

    monkeypatch.setattr(ray, "init", found_by_workers_too)
    assert not ray.is_initialized(), "the command connects by itself"


@pytest.fixture
def seen(monkeypatch) -> list:
    """What the executor told the scheduler."""
    found = []
    events = executor.Ray.events

    def remembered(self):
        for event in events(self):
            found.append(event)
            yield event

    monkeypatch.setattr(executor.Ray, "events", remembered)
    return found


def swept(config: Path, out: Path, *options: object) -> Path:
    code, said = selgen("sweep", "-c", config, "--out", out, *options)
    assert code == 0, said
    return out


def write(path: Path, data: dict) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_death_of_a_node_in_the_middle_changes_no_record(cluster, model_dir, tmp_path, seen):
    """One run stands still on the second node until that is killed; it goes on from its checkpoint on the first."""
    curves = [{"method": {"name": "fake_hold", "mark": str(tmp_path / "mark")}}]
    data = a_sweep(model_dir, curves=curves, seeds=[1, 2, 3])
    data["training"]["save_steps"] = 1
    config = write(tmp_path / "sweep.yaml", data)
    expected = comparable(swept(config, tmp_path / "local", "--workers", 1))
    assert seen == []

    (tmp_path / "mark").mkdir()
    (tmp_path / "mark" / "spared").write_text(cluster.head_node.node_id)
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    out, held = tmp_path / "ray", tmp_path / "mark" / "held"
    finished_before: list[str] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not held.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        finished_before.extend(path.parent.name for path in out.glob(f"*/{record.RECORD}"))
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        swept(config, out, "--executor", "ray")
    finally:
        killer.join()
    assert held.read_text() == second.node_id
    lost = [event for event in seen if isinstance(event, Lost)]
    assert len(lost) == 1 and lost[0].machine and lost[0].job.run_id not in finished_before
    assert len(finished_before) < 6, "it was not killed in the middle"
    done = [event.job.run_id for event in seen if isinstance(event, Done)]
    assert sorted(done) == sorted(r["run_id"] for r in expected) and len(set(done)) == 6
    assert comparable(out) == expected
    steps = [row["step"] for row in record.read_metrics(out / lost[0].job.run_id)]
    assert steps == list(range(1, len(steps) + 1)), "a step was logged twice, or not at all"
    assert not list(out.glob(".shared-*"))


@pytest.fixture
def with_children(model_dir, tmp_path) -> Path:
    """A run, one that acts on its result, and the starting model."""
    curves = [{"method": "task_only"}, {"method": {"name": "rescale", "alpha": 0.5}}]
    return write(tmp_path / "sweep.yaml", a_sweep(model_dir, curves=curves, seeds=[1]))


@contextmanager
def nowhere(out_dir: Path) -> Iterator[str]:
    yield "no-such-file"


def test_machines_that_share_no_path_send_their_runs_back(with_children, tmp_path, monkeypatch, seen):
    """What a run needs of another's result is sent along."""
    expected = comparable(swept(with_children, tmp_path / "local", "--workers", 1))
    monkeypatch.setattr(remote, "probe", nowhere)
    out = swept(with_children, tmp_path / "ray", "--executor", "ray", "--workers", 1)
    assert comparable(out) == expected
    assert len([event for event in seen if isinstance(event, Done)]) == 3
    files = {p.name: sorted(q.relative_to(p).as_posix() for q in p.rglob("*")) for p in out.iterdir() if p.is_dir()}
    local = tmp_path / "local"
    assert files == {
        p.name: sorted(q.relative_to(p).as_posix() for q in p.rglob("*")) for p in local.iterdir() if p.is_dir()
    }


@contextmanager
def unreadable(out_dir: Path) -> Iterator[str]:
    (out_dir / ".shared-loop").symlink_to(out_dir / ".shared-loop")
    yield ".shared-loop"
    (out_dir / ".shared-loop").unlink()


def test_faults_of_machines_are_told_and_the_same_command_finishes_the_sweep(with_children, tmp_path, monkeypatch):
    """A worker without selgen, then one that cannot read the path, then a sound one."""
    out = tmp_path / "ray"
    with monkeypatch.context() as patch:
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "selgen.py").write_text("raise ModuleNotFoundError(\"No module named 'selgen'\")")
        patch.syspath_prepend(str(tmp_path / "without"))  # workers import what the driver would
        code, said = selgen("sweep", "-c", with_children, "--out", out, "--executor", "ray")
    assert code == 1
    assert re.search(r"The worker on .* should have selgen \S+, found: No module named 'selgen'\. Install it", said), (
        said
    )
    with monkeypatch.context() as patch:
        patch.setattr(remote, "probe", unreadable)
        code, said = selgen("sweep", "-c", with_children, "--out", out, "--executor", "ray")
    assert code == 1
    assert f"{out}/.shared-loop should be readable and writable, found: Too many levels of symbolic links" in said
    assert "Mend its permissions or its mount" in said
    assert not list(out.glob(f"*/{record.RECORD}"))
    expected = comparable(swept(with_children, tmp_path / "local", "--workers", 1))
    assert comparable(swept(with_children, out, "--executor", "ray")) == expected


def test_a_run_that_no_machine_can_hold_is_told_after_a_while(with_children, tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "PATIENCE", 1.0)
    code, said = selgen(
        "sweep", "-c", with_children, "--out", tmp_path / "o", "--executor", "ray", "executor.num_gpus=1"
    )
    assert code == 1
    assert "needs {'CPU': 1, 'GPU': 1.0}, found [{'CPU': 1.0, 'GPU': 0}]. Lower executor.num_cpus" in said


def test_a_cluster_that_is_not_there_is_told(with_children, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    code, said = selgen("sweep", "-c", with_children, "--out", tmp_path / "o", "--executor", "ray")
    assert code == 1
    assert "RAY_ADDRESS should be that of a running cluster, found '127.0.0.1:1'" in said
