"""Writes golden.json: the loss of 20 steps of every method on a tiny model. Run after a change that is meant."""

import json
from pathlib import Path

import torch

from selgen import registry
from selgen.checks import losses_of, train_tiny

if __name__ == "__main__":
    torch.set_num_threads(1)
    curves = {n: losses_of(train_tiny(registry.load("methods", n)(), steps=20)) for n in registry.names("methods")}
    Path(__file__).with_name("golden.json").write_text(json.dumps(curves, indent=1) + "\n")
