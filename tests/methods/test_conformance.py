"""Every method of the registry passes every conformance check, and its golden curve."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from selgen import registry, tiny
from selgen.adapters import lora_layers
from selgen.checks import check_method, losses_of, train_tiny
from selgen.core import PostHoc
from selgen.methods.early_stop import EarlyStop
from selgen.methods.freeze import Freeze
from selgen.methods.kl import KLPenalty
from selgen.methods.o_lora import OLoRA
from selgen.methods.projection import Projection
from selgen.methods.representation import Representation
from selgen.methods.safe_lora import SafeLoRA

METHODS = registry.names("methods")
TRAINED = [name for name in METHODS if not issubclass(registry.load("methods", name), PostHoc)]
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("name", METHODS)
def test_conformance(name):
    method = registry.load("methods", name)()
    passed = check_method(method)
    assert len(passed) == (5 if isinstance(method, PostHoc) else 7) + (method.neutral is not None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        KLPenalty(2.0, "ref_policy"),
        KLPenalty(2.0, "jsd"),
        Representation(2.0, norm="squared"),
        Representation(2.0, positions="completion"),
        Projection("conflict"),
        Projection(scope="tensor"),
        Projection("conflict", "tensor"),
        Projection(against="random"),
        Projection(scope="tensor", against="random"),
        Freeze("first"),
        Freeze("middle", 0.5),
        OLoRA(absolute=True, l2=0.1),
    ],
    ids=repr,
)
def test_conformance_of_the_other_choices(method):
    assert len(check_method(method)) == 7 + (method.neutral is not None)


@pytest.mark.parametrize("method", [SafeLoRA(tau=0.5), EarlyStop(1)], ids=repr)
def test_conformance_of_post_hoc_methods_without_a_neutral_strength(method):
    assert check_method(method) == [
        *("changes_only_the_adapter", "is_deterministic", "leaves_the_parent_alone"),
        *("round_trips_through_json", "refuses_bad_input"),
    ]


def test_conformance_of_the_random_projector():
    assert "neutral_is_its_baseline" in check_method(SafeLoRA(projector="random"))


@pytest.mark.parametrize("name", TRAINED)
def test_golden_curve(name):
    """20 steps on a tiny model. Regenerate with `python tests/methods/golden.py`, and say why in the commit."""
    losses = losses_of(train_tiny(registry.load("methods", name)(), steps=20))
    assert losses == pytest.approx(GOLDEN[name], rel=1e-3)


def test_a_method_that_leaks_padding_is_caught():
    @dataclasses.dataclass
    class OverPadding(KLPenalty):
        def losses(self, model, batch, ref):
            terms = super().losses(model, batch, ref)
            padded = batch["align"].input_ids.numel()
            return {**terms, "kl": dataclasses.replace(terms["kl"], total=terms["kl"].total * padded)}

    with pytest.raises(AssertionError, match="padding changes term 'kl'"):
        check_method(OverPadding())


def test_a_method_that_is_not_neutral_is_caught():
    @dataclasses.dataclass
    class Offset(KLPenalty):
        def losses(self, model, batch, ref):
            terms = super().losses(model, batch, ref)
            return {**terms, "kl": dataclasses.replace(terms["kl"], weight=self.beta + 0.1)}

    with pytest.raises(AssertionError, match="beta=0.0 and task_only should end with bit-identical weights"):
        check_method(Offset())


def test_a_method_that_averages_per_micro_batch_is_caught():
    @dataclasses.dataclass
    class PerBatch(KLPenalty):
        def losses(self, model, batch, ref):
            terms = super().losses(model, batch, ref)
            mean = terms["task"].total / max(batch["task"].num_targets, 1)
            return {**terms, "task": dataclasses.replace(terms["task"], total=mean, unit="one")}

    with pytest.raises(AssertionError, match="1 x B should equal 2 x B/2"):
        check_method(PerBatch())


def test_a_method_that_reads_an_undeclared_stream_is_caught():
    @dataclasses.dataclass
    class Peeks(KLPenalty):
        streams = ("task", "align", "rejected")

    with pytest.raises(AssertionError, match="streams should be exactly those read"):
        check_method(Peeks())


@dataclasses.dataclass
class Halves(PostHoc):
    """Halves B, by the factor that it is told."""

    factor: float = 0.5
    strength = "factor"
    neutral = (1.0, "task_only")

    def __post_init__(self):
        if self.factor < 0:
            raise ValueError(f"method.factor should be >= 0, found {self.factor}. Use 1 for task-only.")

    def transform(self, model, start):
        with torch.no_grad():
            for _, layer in lora_layers(model):
                layer.lora_B["default"].weight.mul_(self.factor)
        return {}


def test_a_post_hoc_method_of_another_package_conforms():
    assert "neutral_is_its_baseline" in check_method(Halves())


def test_a_post_hoc_method_whose_strengths_add_up_is_caught():
    class Cumulative(Halves):
        applied = 1.0

        def transform(self, model, start):
            self.applied = self.factor = self.factor * self.applied
            return super().transform(model, start)

    with pytest.raises(AssertionError, match="two transformations of one adapter should end with bit-identical"):
        check_method(Cumulative())


def test_a_post_hoc_method_that_changes_the_starting_model_is_caught():
    class Merges(Halves):
        def transform(self, model, start):
            with torch.no_grad():
                model.get_base_model().lm_head.weight.add_(1)
            return super().transform(model, start)

    with pytest.raises(AssertionError, match="the starting model before and after should end with bit-identical"):
        check_method(Merges())


def test_a_post_hoc_method_is_not_trained():
    with pytest.raises(ValueError, match="acts on a finished run and trains nothing. Start it with selgen train"):
        train_tiny(Halves())


def test_tiny_data_has_what_the_checks_need():
    lengths = {len(e.completion.split()) for e in tiny.task_data()}
    assert len(lengths) > 1 and all(e.rejected for e in tiny.align_data())
