"""Job arrays through submitit, whose local executor stands in for Slurm: the same pickles, processes and results."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

import fakes
from command import selgen
from selgen import record
from selgen.blocks import ExecutorSpec
from selgen.config import ConfigError
from selgen.executors import remote, slurm
from sweeps import a_sweep, comparable

submitit = pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # cancelled jobs
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def where(monkeypatch, tmp_path):
    site = fakes.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(TESTS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(slurm, "CLUSTER", "local")


@pytest.fixture
def config(model_dir, tmp_path) -> Path:
    """A run, one that acts on its result, and the starting model."""
    curves = [{"method": "task_only"}, {"method": {"name": "rescale", "alpha": 0.5}}]
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(a_sweep(model_dir, curves=curves, seeds=[1])))
    return path


@contextmanager
def nowhere(out_dir: Path):
    yield "no-such-file"


@pytest.mark.slow
def test_arrays_have_the_local_sweeps_records_after_faults_too(config, tmp_path, monkeypatch, stand_in):
    """A worker without selgen, then one that does not share the path, then sound ones; a run waits for its parent."""
    out = tmp_path / "slurm"
    with monkeypatch.context() as patch:
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "selgen.py").write_text("raise ModuleNotFoundError(\"No module named 'selgen'\")")
        patch.setenv("PYTHONPATH", str(tmp_path / "without"))
        code, said = selgen("sweep", "-c", config, "--out", out, "--executor", "slurm")
    assert code == 1
    assert re.search(r"The worker on .* should have selgen \S+, found: No module named 'selgen'\. Install it", said), (
        said
    )
    with monkeypatch.context() as patch:
        patch.setattr(remote, "probe", nowhere)
        code, said = selgen("sweep", "-c", config, "--out", out, "--executor", "slurm")
    assert code == 1
    assert f"--out {out} should be a path that all machines share, found nothing there on" in said
    assert not list(out.glob(f"*/{record.RECORD}"))
    code, said = selgen("sweep", "-c", config, "--out", out, "--executor", "slurm", "--workers", 2)
    assert code == 0, said
    code, said = selgen("sweep", "-c", config, "--out", tmp_path / "local", "--workers", 1)
    assert code == 0, said
    assert comparable(out) == comparable(tmp_path / "local")


@pytest.mark.slow
def test_a_job_that_dies_is_named_with_what_it_said(model_dir, tmp_path, stand_in):
    """And is tried again as often as asked."""
    curves = [{"method": {"name": "fake_crash", "mark": str(tmp_path / "mark")}}]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(a_sweep(model_dir, curves=curves, seeds=[1])))
    arguments = ["sweep", "-c", tmp_path / "sweep.yaml", "--out", tmp_path / "out", "--executor", "slurm"]
    code, said = selgen(*arguments)
    assert code == 1
    assert re.search(
        r"The worker processes of 1 runs died: \w{12} \(FINISHED: .*What they printed lies in OUT/slurm", said
    )
    (tmp_path / "mark").unlink()
    code, said = selgen(*arguments, "--retry", 1)
    assert code == 0, said


def test_what_is_asked_of_slurm_is_what_the_config_says(tmp_path, monkeypatch):
    """The batch script that a real sbatch would get."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho Submitted batch job 7\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    spec = ExecutorSpec(
        name="slurm", num_cpus=4, num_gpus=1, memory_gb=40, minutes=90, options={"partition": "gpu", "mail-user": "a@b"}
    )
    out = tmp_path / "out"
    out.mkdir()
    with slurm.Slurm(spec, out, workers=1) as executor:
        executor._executor.map_array(len, [b"one", b"two"])
    [script] = out.rglob("*_submission.sh")
    asked = set(re.findall(r"#SBATCH --(\S+)", script.read_text()))
    assert {
        *("array=0-1%1", "cpus-per-task=4", "gpus-per-node=1", "mem=40GB", "time=90"),
        *("partition=gpu", "mail-user=a@b", "job-name=selgen"),
    } <= asked


def test_without_slurm_it_says_where_to_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs Slurm's sbatch, .* Start the sweep on a login node"):
        slurm.Slurm(ExecutorSpec(name="slurm"), tmp_path, None)
