"""What a reference keeps on disk: equal to the live values, found by other runs, never somebody else's."""

import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from selgen import caches, reference, stored, tiny
from selgen.checks import losses_of, train_tiny
from selgen.data.chat import collate, encode
from selgen.methods.kl import KLPenalty
from selgen.reference import FrozenReference

KINDS = ["hidden", "layers", "logprobs"]


@pytest.fixture(autouse=True)
def on_disk(monkeypatch, tmp_path):
    """Everything is large enough for the disk, and the user's cache is a fresh directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(reference, "MEMORY_BYTES", 0)


def rows(num=3):
    return [encode(tiny.tokenizer(), e) for e in tiny.align_data(num)]


def tokens(ids=(2, 0)):
    return collate([rows()[i] for i in ids], ids, 0)


def adapted(model=None, **changes):
    torch.manual_seed(0)
    config = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False} | changes
    return get_peft_model(tiny.model() if model is None else model, LoraConfig(**config))


def kept(model, what="hidden", num=3, **options):
    made = FrozenReference(model, {"align": rows(num)}, 0, **options)
    made.precompute("align", what)
    return made


def files() -> list[Path]:
    return sorted(path for path in caches.home().rglob("*") if path.is_file())


@pytest.mark.parametrize("what", KINDS)
def test_stored_equals_live(architecture, what):
    stored_one, live = (
        kept(adapted(tiny.model(architecture)), what),
        kept(adapted(tiny.model(architecture)), what, use_cache=False),
    )
    assert stored_one.kept[f"{what} of align"].startswith("cached on disk, ")
    stored_one._live = None  # type: ignore[method-assign, assignment]
    for one, other in zip(*(getattr(r, what)(tokens()) for r in (stored_one, live)), strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("what", KINDS)
def test_another_run_reads_the_same_bits_and_computes_nothing(what, monkeypatch):
    """Another adapter, of other rank on other modules, on the same model."""
    first = kept(adapted(), what)
    monkeypatch.setattr(FrozenReference, "_live", None)
    second = kept(adapted(r=2, target_modules=["q_proj", "lm_head"]), what)
    assert second.kept[f"{what} of align"].startswith("cached on disk by an earlier run, ")
    for one, other in zip(*(getattr(r, what)(tokens()) for r in (first, second)), strict=True):
        assert torch.equal(one, other)
    assert len(files()) == 1


def test_the_values_are_read_from_the_file_where_they_are_used():
    """Memory-mapped: what is written into the file afterwards is what the reference gives."""
    made = kept(adapted())
    before = made.hidden(tokens())
    (path,) = files()
    with path.open("r+b") as file:
        file.seek(-before[0].nbytes * 2, os.SEEK_END)
        file.write(bytes(before[0].nbytes * 2))
    assert not torch.equal(made.hidden(tokens()), before)


@pytest.mark.parametrize("change", ["weight", "rows", "dtype", "labels", "what", "config"])
def test_other_content_is_another_file(change):
    kept(adapted(), "hidden")
    model, what, num = tiny.model(), "hidden", 3
    if change == "weight":
        model.get_parameter("model.layers.0.mlp.up_proj.weight").data[0, 0] += 1e-3
    if change == "dtype":
        model.to(torch.bfloat16)
    if change == "config":
        model.config.rms_norm_eps = 1e-3
    if change == "rows":
        num = 2
    if change == "what":
        what = "logprobs"
    made = FrozenReference(adapted(model), {"align": rows(num)}, 0)
    if change == "labels":
        made._rows["align"][1].labels[-2] = -100
    made.precompute("align", what)
    assert made.kept[f"{what} of align"].startswith("cached on disk, ")
    assert len(files()) == 2


@pytest.mark.parametrize(
    "changes", [None, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["norm"]}], ids=["full", "head", "norm"]
)
@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
def test_where_weights_of_the_model_are_trained_nothing_goes_to_disk(changes):
    made = kept(tiny.model() if changes is None else adapted(**changes))
    assert made.kept["hidden of align"].startswith("cached, ")
    assert files() == []


def test_small_values_stay_in_memory(monkeypatch):
    monkeypatch.setattr(reference, "MEMORY_BYTES", 1 << 20)
    assert kept(adapted()).kept["hidden of align"].startswith("cached, ")
    assert files() == []


def test_a_damaged_file_is_computed_and_written_again():
    first = kept(adapted())
    (path,) = files()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = kept(adapted())
    assert again.kept["hidden of align"].startswith("cached on disk, ")
    assert path.read_bytes() == whole
    assert first.kept == again.kept


def test_a_disk_that_cannot_be_written_keeps_them_in_memory(monkeypatch):
    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored, "save_file", full)
    made = kept(adapted())
    assert "in memory because it could not be written to disk ([Errno 28] No space left" in made.kept["hidden of align"]
    assert files() == [], "no half-written file should be left"
    live = kept(adapted(), use_cache=False)
    torch.testing.assert_close(made.hidden(tokens()), live.hidden(tokens()))


def test_a_hit_costs_one_head_per_step():
    """FLOPs of the reference's part of a KL step: V x D multiply-adds for each completion token, and nothing else."""
    made = kept(adapted())
    batch = tokens()
    with FlopCounterMode(display=False) as counted:
        made.head(made.hidden(batch))
    assert counted.get_total_flops() == 2 * batch.num_targets * tiny.SIZES["vocab_size"] * tiny.SIZES["hidden_size"]


def test_training_with_stored_values_ends_as_with_live_ones():
    stored_one, again, live = (
        train_tiny(KLPenalty()),
        train_tiny(KLPenalty()),
        train_tiny(KLPenalty(), reference_cache=False),
    )
    assert again.reference.kept["hidden of align"].startswith("cached on disk by an earlier run")
    assert losses_of(stored_one) == losses_of(again)
    assert losses_of(stored_one) == pytest.approx(losses_of(live), rel=1e-4)


def test_a_bar_is_shown_only_where_it_is_wanted_and_there_is_a_terminal(monkeypatch):
    shown = []
    monkeypatch.setattr(reference, "track", lambda work, disable, **bar: shown.append(not disable) or work)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for wanted, num in ((True, 3), (False, 2)):
        kept(adapted(), num=num, progress=wanted)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    kept(adapted(), num=1, progress=True)
    assert shown == [True, False, False]
