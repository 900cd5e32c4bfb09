"""A run on another machine: whether that can be used at all, and how its directory travels."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from fakes import install
from selgen import plan, record, starting, sweep
from selgen.config import ConfigError
from selgen.data.formats import DataError
from selgen.executors import parcels, remote
from selgen.grid import ExecutorSpec, SweepSpec
from sweeps import a_sweep


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(install(tmp_path / "site")))


def errand(out: Path, probe: str, job: plan.Job | None = None, must_share: bool = False) -> remote.Errand:
    return remote.Errand(job or a_job(), out, probe, must_share=must_share, threads=1)


def a_job(path: str = "owner/name", **paths):
    spec = SimpleNamespace(setting={"name": "files", "task": "owner/rows", "alignment": "owner/other", **paths})
    return SimpleNamespace(run_id="a", spec=spec, start=SimpleNamespace(path=path), first=None, parent=None)


def reply(errand: remote.Errand, execute=lambda job, out: None) -> remote.Reply:
    return remote.carry_out(errand.packed(), (), execute)


def carried_out(job, out: Path) -> None:
    (out / job.run_id / "adapter").mkdir(parents=True)
    (out / job.run_id / "adapter" / "weights").write_bytes(b"\0\1")
    (out / job.run_id / record.RECORD).write_text("{}")


def test_a_machine_that_shares_the_path_writes_there(tmp_path):
    with remote.probe(tmp_path) as probe:
        assert reply(errand(tmp_path, probe), carried_out) == {"results": None}
    assert (tmp_path / "a" / record.RECORD).is_file()
    assert not list(tmp_path.glob(".shared-*"))


def test_a_machine_that_does_not_sends_the_directory_back(tmp_path):
    files = reply(errand(tmp_path / "away", "probe"), carried_out)["results"]
    assert not (tmp_path / "away").exists()
    (tmp_path / "here" / "a").mkdir(parents=True)
    (tmp_path / "here" / "a" / "left over").touch()
    parcels.unpack(files, tmp_path / "here" / "a")
    found = sorted(p.relative_to(tmp_path / "here").as_posix() for p in (tmp_path / "here").rglob("*"))
    assert found == ["a", "a/adapter", "a/adapter/weights", "a/record.json"]
    assert (tmp_path / "here" / "a" / "adapter" / "weights").read_bytes() == b"\0\1"


def test_a_parcel_that_cannot_be_unpacked_leaves_what_was_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(Exception, match=r"."):
        parcels.unpack(b"no archive" * 100, tmp_path / "a")
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*")) if "site" not in p.parts] == [
        "a",
        "a/kept",
    ]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (a_job("/no/model"), "the model /no/model should be a path that all machines share"),
        (a_job(task="/no/rows.jsonl"), "setting.task /no/rows.jsonl should be a path"),
        (a_job(held_out={"law": "/no/law.jsonl"}), "setting.held_out /no/law.jsonl should be a path"),
    ],
)
def test_a_machine_without_the_model_or_the_data_is_refused_before_the_run_is_begun(tmp_path, job, expected):
    refused = reply(errand(tmp_path, "probe", job), lambda *args: pytest.fail("it was begun"))["refused"]
    assert expected in refused and "Mount it" in refused


def test_where_results_can_only_be_shared_a_machine_that_does_not_is_refused(tmp_path):
    refused = reply(errand(tmp_path, "probe", must_share=True), carried_out)["refused"]
    assert f"--out {tmp_path} should be a path that all machines share, found nothing there" in refused


def test_a_disk_that_is_full_over_there_stops_the_sweep_and_names_the_machine(tmp_path):
    def full(job, out):
        from selgen.storage import StorageError

        raise StorageError("/x cannot be written: the disk is full.")

    with remote.probe(tmp_path) as probe:
        refused = reply(errand(tmp_path, probe), full)["refused"]
    assert refused.startswith("On ") and "/x cannot be written: the disk is full." in refused


# -- the config --------------------------------------------------------------------------------------------------------


def test_where_a_run_is_carried_out_changes_no_id(model_dir):
    def ids(**changes):
        runs = plan.parse_sweep(a_sweep(model_dir, **changes)).expand()
        start = starting.start(runs[0])
        return [plan.job(run, start).run_id for run in runs]

    assert ids() == ids(executor="ray") == ids(executor={"name": "slurm", "num_gpus": 2, "memory_gb": 9})


def test_a_sweep_goes_on_elsewhere_and_one_of_an_earlier_version_too(model_dir, tmp_path):
    spec = SweepSpec.parse(a_sweep(model_dir, executor={"name": "ray", "num_cpus": 2}))
    plain = SweepSpec.parse(a_sweep(model_dir))
    assert "executor" not in sweep.as_data(plain)
    (tmp_path / sweep.SWEEP).write_text(yaml.safe_dump(sweep.as_data(plain)))
    sweep.refuse_another(spec, tmp_path)
    (tmp_path / sweep.SWEEP).write_text(yaml.safe_dump(sweep.as_data(spec)))
    assert SweepSpec.parse(yaml.safe_load((tmp_path / sweep.SWEEP).read_text())) == spec
    sweep.refuse_another(plain, tmp_path)
    with pytest.raises(ConfigError, match="lora.r: there 2, here 3"):
        sweep.refuse_another(SweepSpec.parse(a_sweep(model_dir, lora={"r": 3, "lora_alpha": 4})), tmp_path)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("kubernetes", r"executor.name should be 'local', 'ray' or 'slurm', found 'kubernetes'"),
        ({"num_gpu": 1}, r"Unknown key executor.num_gpu. Did you mean 'num_gpus'"),
        ({"name": "slurm", "num_gpus": 0.5}, r"executor.num_gpus should be a whole number with slurm, found 0.5"),
        ({"name": "ray", "num_gpus": 1.5}, r"executor.num_gpus should be a whole number, or below 1, found 1.5"),
        ({"memory_gb": 0}, r"executor.memory_gb should be greater than 0, found 0"),
    ],
)
def test_wrong_executors_are_told(model_dir, block, message):
    with pytest.raises(ConfigError) as refused:
        SweepSpec.parse(a_sweep(model_dir, executor=block))
    assert re.search(message, str(refused.value)), refused.value


@pytest.mark.parametrize("error", [ConfigError, DataError])
def test_errors_arrive_from_another_process_as_they_were_raised(error):
    here = error(["a.b is wrong. Correct it.", "c is missing."])
    there = pickle.loads(pickle.dumps(here))
    assert (type(there), str(there), there.problems) == (error, str(here), here.problems)


def test_a_fraction_of_a_gpu_is_rays():
    assert ExecutorSpec(name="ray", num_gpus=0.25).num_gpus == 0.25
