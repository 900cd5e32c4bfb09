"""Out of memory is recorded as that, with what to lower; by injected faults through the command line."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

import fakes
from command import selgen
from selgen import models, record, shortage, work
from selgen.spec import RunSpec
from sweeps import a_sweep
from test_run import TRAINING

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has a total capacity of 79 GiB.")
TRAINING_REMEDY = (
    r"Lower training.per_device_train_batch_size \(4; raise gradient_accumulation_steps \(1\) as much\); lower "
    r"training.max_length \(no limit\); set training.gradient_checkpointing=true; set model.dtype=bfloat16\."
)
MEASURING_REMEDY = r"Lower evaluation.batch_size \(256\); lower evaluation.max_new_tokens \(4\); "
LOADING_REMEDY = r"Set model.dtype=bfloat16; set model.quantization=nf4; choose a smaller model"


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


def fail(error):
    def raising(*args, **kwargs):
        raise error

    return raising


@pytest.mark.parametrize(("attention", "told"), [(None, True), ("eager", True), ("flash_attention_2", False)])
def test_rows_read_as_one_are_named_where_they_need_more_memory(attention, told):
    data = {"setting": "fake", "model": {"name": "m", "attn_implementation": attention}, "method": "task_only"}
    spec = RunSpec.parse(data | {"training": {"padding_free": True}})
    assert ("training.padding_free=false" in shortage.advice(GPU, spec, "training")) == told


def test_gathering_the_whole_model_has_advice_of_its_own():
    spec = RunSpec.parse({"setting": "fake", "model": "m", "method": "task_only"})
    assert "out of memory while gathering" in (said := shortage.advice(GPU, spec, "gathering"))
    assert "launch with DDP" in said


@pytest.mark.parametrize("error", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize(
    ("stage", "where", "remedy"),
    [
        ("loading", (models, "load"), LOADING_REMEDY),
        ("training", (work.SelectiveTrainer, "training_step"), TRAINING_REMEDY),
        ("measuring", (work, "measure"), MEASURING_REMEDY),
    ],
)
def test_a_run_without_memory_says_what_to_lower(model_dir, tmp_path, monkeypatch, error, stage, where, remedy):
    monkeypatch.setattr(*where, fail(error))
    config = {key: value for key, value in a_sweep(model_dir).items() if key not in ("seeds", "curves")}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config | {"method": "task_only", "training": TRAINING}))
    code, said = selgen("train", "-c", path, "--out", tmp_path / "out")
    assert code == 1
    [found] = record.read_all(tmp_path / "out")
    assert found.status == "failed" and found.error.type == "OutOfMemoryError"
    first_line = re.escape(str(error).splitlines()[0].rstrip("."))
    assert re.search(rf"out of memory while {stage} \({first_line}\)\. {remedy}", found.error.message)
    assert re.search(remedy, said), said
    assert (tmp_path / "out" / found.run_id / "error.txt").is_file()


def test_a_sweep_goes_on_and_its_records_say_so(model_dir, tmp_path):
    """In a real worker: the method asks for more than there is."""
    path = tmp_path / "sweep.yaml"
    curves = [{"method": "task_only"}, {"method": "fake_greedy"}]
    path.write_text(yaml.safe_dump(a_sweep(model_dir, curves=curves, seeds=[1])))
    code, said = selgen("sweep", "-c", path, "--out", tmp_path / "out", "--workers", 1)
    found = {r.method: r for r in record.read_all(tmp_path / "out")}
    assert found["task_only"].status == "success"
    error = found["fake_greedy"].error
    assert error.type == "OutOfMemoryError" and re.search(TRAINING_REMEDY, error.message)
    assert code == 1 and "training.gradient_checkpointing=true" in said, said


def test_what_is_set_already_is_not_advised():
    spec = RunSpec.parse(
        {
            "setting": "fake",
            "method": "task_only",
            "model": {"name": "x", "dtype": "bfloat16"},
            "training": {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "max_length": 512},
        }
    )
    assert shortage.advice(GPU, spec, "training").endswith("20.00 GiB). Lower training.max_length (512).")


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (CPU, True),
        (GPU, True),
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_apart(error, is_one):
    assert shortage.is_out_of_memory(error) is is_one
    wrapped = RuntimeError("loading failed")
    wrapped.__cause__ = error
    assert shortage.is_out_of_memory(wrapped) is is_one


def test_the_words_are_those_that_torch_uses():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert shortage.is_out_of_memory(raised.value)
