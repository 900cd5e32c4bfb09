"""One run over two processes is the run of one process: weights, logs, records, and what users are told."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import fakes
import many_worker
from own import untouched
from selgen import launch, record
from selgen.cli import app
from selgen.data.pairing import Plan, PlannedBatches

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What `accelerate launch` makes of `fsdp2.yaml`."""
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"]
TORCHRUN += ["--rdzv-endpoint", "localhost:0"]


def site(tmp_path: Path) -> Path:
    """Where the fake package is installed."""
    return tmp_path / "site" if (tmp_path / "site").is_dir() else fakes.install(tmp_path / "site")


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    found = [str(Path(launch.__file__).parents[1]), str(Path(__file__).parent), str(site(tmp_path))]
    found += [os.environ[name] for name in ("PYTHONPATH",) if name in os.environ]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(found), **changes}


def together(tmp_path: Path, *arguments: object, **changes: str) -> subprocess.CompletedProcess:
    """Two processes that torchrun starts."""
    command = [sys.executable, "-W", "ignore", *TORCHRUN, *map(str, arguments)]
    return subprocess.run(command, env=environment(tmp_path, **changes), capture_output=True, text=True, timeout=600)


def jobs(tmp_path: Path, *names: str, **changes: str) -> dict:
    """What two processes make of jobs of `many_worker`."""
    done = together(tmp_path, many_worker.__file__, ",".join(names), tmp_path, **changes)
    assert done.returncode == 0, done.stderr
    return torch.load(tmp_path / "done.pt")


def distance(a: dict, b: dict) -> float:
    """Relative norm of the difference of weights."""
    assert a["weights"].keys() == b["weights"].keys()
    moved = sum((a["weights"][n] - b["weights"][n]).double().square().sum() for n in a["weights"])
    return math.sqrt(moved / sum(w.double().square().sum() for w in b["weights"].values()))


# -- equality ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_as_one_with_every_method(tmp_path):
    """Ten steps in float32, without and with accumulation; within 1e-4 (found: 1e-6)."""
    two, one = jobs(tmp_path, "equality")["equality"], many_worker.equality()
    assert two.keys() == one.keys() and len(one) >= 2 * 12 + 2
    for name in one:
        assert distance(two[name], one[name]) < 1e-4, name
        assert len(two[name]["logged"]) == many_worker.STEPS
        for a, b in zip(two[name]["logged"], one[name]["logged"], strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_methods_that_only_add_losses_train_the_same_with_weights_in_parts(tmp_path):
    """FSDP2 on CPU, ten steps in float32; also where a process has no alignment rows, or no task rows, in a step."""
    two, one = jobs(tmp_path, "in_parts", **FSDP2)["in_parts"], many_worker.in_parts()
    assert two.keys() == one.keys() and two["in parts"] == 1 and one["in parts"] == 0
    for name in two.keys() - {"saved", "in parts"}:
        assert distance(two[name], one[name]) < 1e-3, name
        assert two[name]["update norm"] == pytest.approx(one[name]["update norm"], rel=1e-3), name
        for a, b in zip(two[name]["logged"], one[name]["logged"], strict=True):
            assert a == pytest.approx(b, rel=1e-2, abs=1e-5), name  # a KL near 0 is the difference of near equals
    assert distance({"weights": two["saved"]}, {"weights": one["saved"]}) < 1e-3


@pytest.mark.slow
def test_the_command_with_weights_in_parts_leaves_the_same_record(run_yaml, tmp_path, one_process):
    said = jobs(tmp_path, "command_in_parts", **FSDP2)["command_in_parts"]["said"]
    assert [code for code, _ in said] == [0, 0], said
    code, words = one_process(tmp_path / "one")
    assert code == 0, words
    assert same(comparable(tmp_path / "out"), comparable(tmp_path / "one"))
    [found] = (tmp_path / "out").glob("*/adapter")
    assert not (found.parent / "gathered").exists()
    code, words = one_process(tmp_path / "out")  # it is finished
    assert code == 0, words


@pytest.mark.slow
def test_the_sum_of_gradients_is_what_makes_them_equal(tmp_path):
    """Otherwise the comparison above could not fail."""
    done = jobs(tmp_path, "without_the_sum")["without_the_sum"]
    assert distance(done, many_worker.train(many_worker.KLPenalty(), 2)) > 1e-2


@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint_as_if_they_had_not_stopped(tmp_path):
    done = jobs(tmp_path, "resumed")["resumed"]
    assert distance(done, many_worker.train(many_worker.KLPenalty(), 4)) < 1e-4


@pytest.mark.slow
def test_processes_say_when_one_fails_and_agree_on_gradients(tmp_path):
    """None waits for one that has stopped: each raises its own error, or says whose it was."""
    done = jobs(tmp_path, "failures", "talk", "uneven")
    check_failures(done["failures"])
    assert done["uneven"]["said"] == ["another process ended before this one.", None]
    nobody, both, one = done["talk"]["summed"]
    assert nobody is None and both.tolist() == [3.0, 3.0] and one.tolist() == [2.0, 2.0]
    assert [g.tolist() for g in done["talk"]["by two"]] == [[3.0, 3.0], [30.0, 30.0]]
    assert done["talk"]["equal"] == [[0.0] * 3] * 2 and done["talk"]["first"] == [7, 7]
    assert done["talk"]["order"] == "01"


@pytest.mark.slow
def test_processes_with_weights_in_parts_say_when_one_fails(tmp_path):
    check_failures(jobs(tmp_path, "failures_in_parts", **FSDP2)["failures_in_parts"])


def check_failures(said: dict) -> None:
    first, last = said["nan"]
    assert last.startswith("NonFiniteError: term 'task' is nan at optimizer step")
    assert first == f"FailedElsewhere: process 1 of 2 failed. {last}"
    for name, error in (
        ("raises", "MemoryError: no memory here"),
        ("early", "MemoryError: no memory before the first step"),
    ):
        assert said[name] == [f"FailedElsewhere: process 1 of 2 failed. {error}", error]


# -- the plan ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("num_task", [16, 17, 23, 3])
def test_processes_divide_the_rows_of_every_step_and_take_as_many_micro_batches(world, num_task):
    plan = Plan(num_task, 5, micro_batch=2, accumulation=4, seed=3)
    whole = list(PlannedBatches(plan))
    shares = [PlannedBatches(plan, rank=r, world=world) for r in range(world)]
    taken = [list(s) for s in shares]
    assert {len(t) for t in taken} == {len(shares[0])} == {math.ceil(len(whole) / world)}
    per_step = plan.accumulation // world
    for step in range(plan.steps_per_epoch):
        ours = [row for t in taken for batch in t[step * per_step : (step + 1) * per_step] for row in batch]
        expected = [row for batch in whole[step * 4 : (step + 1) * 4] for row in batch]
        assert sorted(ours) == sorted(expected)


def test_an_accumulation_that_processes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="accumulation should be a multiple of 2 processes, found 3"):
        PlannedBatches(Plan(6, 0, 1, accumulation=3, align_rows_per_step=0), world=2)


@pytest.mark.parametrize(
    ("one", "processes", "each"),
    [((16, 1), 1, (16, 1)), ((16, 1), 2, (8, 1)), ((4, 8), 2, (4, 4)), ((6, 2), 4, (3, 1)), ((3, 8), 3, (2, 4))],
)
def test_each_process_takes_its_share_of_a_step_in_micro_batches_no_larger(one, processes, each):
    assert launch.shares(*one, processes) == each
    size, number = each
    assert size * number * processes == one[0] * one[1]


def test_the_place_among_processes_is_the_launchers():
    """A scheduler that only sets WORLD_SIZE joins nothing."""
    place = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
    assert (launch.world(place), launch.rank(place), launch.local_rank(place)) == (4, 3, 1)
    assert (launch.world({"WORLD_SIZE": "4"}), launch.rank({"WORLD_SIZE": "4", "RANK": "2"})) == (1, 0)
    assert launch.sharding({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}) == "FSDP2"
    assert launch.sharding({"ACCELERATE_USE_DEEPSPEED": "true"}) == "DeepSpeed"
    assert launch.sharding({"ACCELERATE_USE_FSDP": "false"}) is None


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def run_yaml(model_dir, tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    spec = {
        "setting": "fake",
        "model": str(model_dir),
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.1},
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
        "method": "kl",
    }
    path.write_text(yaml.safe_dump(spec))
    return path


def comparable(out_dir: Path) -> list[dict]:
    """Records without what says where and when they were made."""
    found = []
    for one in record.read_all(out_dir):
        data = one.model_dump(mode="json", exclude={"provenance", "train_seconds", "update_norm"})
        for point in data["points"]:
            del point["eval_seconds"]
        found.append(data)
    return found


def same(a: object, b: object) -> bool:
    """Equal, numbers within 1e-4."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == pytest.approx(b, rel=1e-4, abs=1e-6) if isinstance(a, float) else a == b


@pytest.fixture
def one_process(run_yaml, tmp_path, monkeypatch):
    """The same command without a launcher; its exit code and output."""

    def train(out: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.syspath_prepend(str(site(tmp_path)))
        done = CliRunner().invoke(app, ["train", "-c", str(run_yaml), "--out", str(out), *arguments])
        return done.exit_code, re.sub(r"\s+", " ", done.output)

    return train


@pytest.mark.slow
def test_the_same_command_under_torchrun_leaves_the_same_record(run_yaml, tmp_path, one_process):
    """The same id and steps too: the batch of the config is that of all processes together."""
    done = together(tmp_path, "-m", "selgen", "train", "-c", run_yaml, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Model: ") == 1
    code, said = one_process(tmp_path / "one")
    assert code == 0, said
    assert same(comparable(tmp_path / "two"), comparable(tmp_path / "one"))
    [of_two], [of_one] = (record.read_all(tmp_path / name) for name in ("two", "one"))
    assert of_two.update_norm == pytest.approx(of_one.update_norm, rel=1e-4)
    assert of_two.provenance["processes"] == 2 and "processes" not in of_one.provenance
    for split in ("val", "test"):
        samples = [list(record.read_samples(tmp_path / n / of_one.run_id, split)) for n in ("two", "one")]
        assert same(*samples)


@pytest.mark.slow
def test_runs_that_come_before_and_post_hoc_methods_work_under_torchrun(run_yaml, tmp_path, one_process):
    changed = ["method=rescale", "method.alpha=0.5", "first={training: {num_train_epochs: 1}}", "epochs=null"]
    done = together(tmp_path, "-m", "selgen", "train", "-c", run_yaml, "--out", tmp_path / "two", *changed)
    assert done.returncode == 0, done.stderr
    code, said = one_process(tmp_path / "one", *changed)
    assert code == 0, said
    assert len(comparable(tmp_path / "two")) == 3
    assert same(comparable(tmp_path / "two"), comparable(tmp_path / "one"))


@pytest.mark.slow
def test_a_failure_under_torchrun_becomes_one_record(run_yaml, tmp_path):
    done = together(tmp_path, "-m", "selgen", "train", "-c", run_yaml, "--out", tmp_path / "out", "method=fake_nan")
    assert done.returncode != 0 and "failed: term" in done.stderr
    [failed] = record.read_all(tmp_path / "out")
    assert failed.error is not None and failed.error.type == "NonFiniteError" and failed.error.term is not None


@pytest.mark.slow
def test_a_full_disk_under_torchrun_is_told_and_leaves_no_record(run_yaml, tmp_path):
    said = jobs(tmp_path, "full_disk")["full_disk"]["said"]
    assert [code for code, _ in said] == [1, 1]
    assert "the disk is full" in said[0][1] and "the disk is full" not in said[1][1]
    assert record.read_all(tmp_path / "out") == []


LAUNCHED = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
FSDP = LAUNCHED | FSDP2
DEEPSPEED = LAUNCHED | {"ACCELERATE_USE_DEEPSPEED": "true"}


@pytest.mark.parametrize(
    ("place", "arguments", "told"),
    [
        (FSDP, ["method=projection"], "method projection combines whole gradients, of which FSDP2 leaves each"),
        (FSDP, ["method=o_lora"], "method o_lora fits an adapter of its own first, of which FSDP2"),
        (FSDP, ["method=l2_sp"], "method l2_sp reads or freezes the weights themselves, of which FSDP2"),
        (FSDP, ["method=freeze"], "method freeze reads or freezes the weights themselves, of which FSDP2"),
        (FSDP, ["method=rescale"], "method rescale changes the weights of a finished run, of which FSDP2"),
        (DEEPSPEED, ["method=projection"], "combines whole gradients, of which DeepSpeed leaves each process a part"),
        (FSDP | {"FSDP_VERSION": "1"}, [], "fsdp_version should be 2, found 1"),
        (FSDP | {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, [], "fsdp_state_dict_type should be FULL_STATE_DICT"),
        (FSDP, [], "FSDP2 should spread weights over GPUs, found none. Launch with DDP"),
        (FSDP, ["training.save_steps=2"], "training.save_steps should be null with FSDP2, found 2"),
        (FSDP, ["first={training: {num_train_epochs: 1}}"], "with FSDP2 runs should start from a whole model"),
        (LAUNCHED | {"WORLD_SIZE": "3"}, [], "should be a multiple of their number (3), found 4 x 1"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else None,
)
def test_what_cannot_work_over_processes_is_refused_before_anything_is_done(
    one_process, tmp_path, monkeypatch, place, arguments, told
):
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    code, said = one_process(tmp_path / "out", *arguments)
    assert code == 2 and told in said, said
    assert untouched(tmp_path / "out")


@pytest.mark.parametrize("command", ["sweep", "eval", "report", "demo"])
def test_only_train_is_for_several_processes(monkeypatch, command):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, [command, "--out", "x"] if command == "sweep" else [command])
    said = re.sub(r"\s+", " ", done.output)
    assert done.exit_code == 2 and f"selgen {command} should be started once, found 2 processes" in said, said


def test_every_method_takes_ddp_and_those_that_only_add_losses_take_weights_in_parts():
    for name, method in many_worker.trained_methods().items():
        assert launch.method_problem(method, name, None) is None
    allowed = {n for n, m in many_worker.trained_methods().items() if not launch.method_problem(m, n, "FSDP2")}
    assert allowed == {"task_only", "lower_lr", "mixed", "flipped", "upweight", "kl", "dpo", "representation"}
