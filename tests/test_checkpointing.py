"""Activation checkpointing changes memory and time, and no loss of any method that trains."""

from __future__ import annotations

import pytest
import torch

from selgen import registry
from selgen.checks import losses_of
from selgen.core import PostHoc
from selgen.spec import TrainingSpec
from tiny_trainer import lora, trainer_for

OPTIONS = {"freeze": {"share": 0.5}}
TRAINED = [name for name in registry.names("methods") if not issubclass(registry.load("methods", name), PostHoc)]


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["lora", "full"])
@pytest.mark.parametrize("method", TRAINED)
def test_losses_and_weights_are_those_without(tmp_path, method, full):
    make = registry.load("methods", method)
    if full and make.fits:
        pytest.skip("fits an adapter, so that it refuses full training")
    trainers = []
    for checkpointing in (False, True):
        config = {"activation_checkpointing": checkpointing, "max_steps": 2, "gradient_accumulation_steps": 2}
        trainer = trainer_for(tmp_path, make(**OPTIONS.get(method, {})), None if full else lora(), **config)
        trainer.train()
        trainers.append(trainer)
    plain, checkpointed = trainers
    switched = [any(getattr(m, "gradient_checkpointing", False) for m in t.model.modules()) for t in trainers]
    assert switched == [False, True]
    assert losses_of(plain) == pytest.approx(losses_of(checkpointed), rel=1e-5)
    for (name, one), (_, other) in zip(
        plain.model.named_parameters(), checkpointed.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)


def test_the_older_name_is_the_same_field():
    assert TrainingSpec.parse({"gradient_checkpointing": True}).activation_checkpointing
    assert "gradient_checkpointing" not in TrainingSpec.parse({"gradient_checkpointing": True}).model_dump()
