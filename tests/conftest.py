from __future__ import annotations

import pytest
import torch

from selgen import tiny

torch.set_num_threads(1)


@pytest.fixture
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(params=list(tiny.ARCHITECTURES))
def architecture(request) -> str:
    return request.param
