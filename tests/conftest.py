from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selgen import tiny

torch.set_num_threads(1)

LONGEST = ("test_end_to_end", "test_conformance", "test_first", "test_sweep", "test_own_data", "test_train")
"""Files that take longest. Begun first, so that no worker is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(params=list(tiny.ARCHITECTURES))
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """A saved tiny model with its tokenizer."""
    path = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path
