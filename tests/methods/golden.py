"""Writes golden.json: 20 losses of every method that trains, on a tiny model. Run after a change that is meant."""

import json
from pathlib import Path

import torch

from selgen import registry
from selgen.checks import losses_of, train_tiny
from selgen.core import PostHoc

if __name__ == "__main__":
    torch.set_num_threads(1)
    methods = {name: registry.load("methods", name) for name in registry.names("methods")}
    trained = {name: cls() for name, cls in methods.items() if not issubclass(cls, PostHoc)}
    curves = {name: losses_of(train_tiny(method, steps=20)) for name, method in trained.items()}
    Path(__file__).with_name("golden.json").write_text(json.dumps(curves, indent=1) + "\n")
