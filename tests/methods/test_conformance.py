"""Every method of the registry passes every conformance check, and its golden curve."""

import dataclasses
import json
from pathlib import Path

import pytest

from selgen import registry, tiny
from selgen.checks import check_method, losses_of, train_tiny
from selgen.methods.kl import KLPenalty
from selgen.methods.projection import Projection
from selgen.methods.representation import Representation

METHODS = registry.names("methods")
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("name", METHODS)
def test_conformance(name):
    passed = check_method(registry.load("methods", name)())
    assert len(passed) >= 7


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
    ],
    ids=repr,
)
def test_conformance_of_the_other_choices(method):
    assert len(check_method(method)) == 7 + (method.neutral is not None)


@pytest.mark.parametrize("name", METHODS)
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


def test_tiny_data_has_what_the_checks_need():
    lengths = {len(e.completion.split()) for e in tiny.task_data()}
    assert len(lengths) > 1 and all(e.rejected for e in tiny.align_data())
