"""Two ways to spend less on the same numbers: a micro-batch's rows as one, without padding, and compiled blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import Cache

from selgen.core import Tokens
from selgen.lm import TOLERANCE, completion_hidden, decoder_blocks, eval_mode, unwrap

LEAK = 1e-5
"""Relative norm within which a computation repeats itself, where its bits are expected to be equal."""


def check_padding_free(model: nn.Module, tokens: Tokens) -> None:
    """Make sure that a model reads rows in one as it reads them apart, and none of them in another.

    Args:
        tokens: Two rows.

    Raises:
        ValueError: it does not: what it keeps of a row reaches the next one, or its positions go on.
    """
    num_first, ids_BT = int(tokens.attention_mask[0].sum()), tokens.input_ids.clone()
    ids_BT[0, :num_first] = ids_BT[0, :num_first].flip(0)
    in_one, second = replace(tokens, padding_free=True), int(tokens.predicts_BT[1].sum())
    with torch.no_grad(), eval_mode(model):
        apart_nD = completion_hidden(model, replace(tokens, padding_free=False)).float()
        one_nD, flipped_nD = (completion_hidden(model, t).float() for t in (in_one, replace(in_one, input_ids=ids_BT)))
    moved = (one_nD - apart_nD).norm() / apart_nD.norm()
    leaked = (one_nD - flipped_nD)[-second:].norm() / one_nD[-second:].norm()
    if moved > TOLERANCE or leaked > LEAK:
        inner = unwrap(model)
        raise ValueError(
            f"training.padding_free should be false with a {inner.config.model_type} model and attn_implementation="
            f"{inner.config._attn_implementation}, found hidden states that depend on the row before (relative norm "
            f"{max(moved, leaked):.1g}). Set it to false, or choose another attention."
        )


@contextmanager
def compiled_blocks(model: nn.Module) -> Iterator[None]:
    """Every decoder block's forward by `torch.compile`; the blocks are as before on leaving.

    Blocks share their code, so it is compiled once for all of them (and again for the reference, which takes no
    gradient), and hooks on blocks still see what goes in and comes out. Text is generated without: a cache that grows
    with every token would be compiled anew.

    Raises:
        ValueError: see `lm.decoder_blocks`.
    """
    before = [(block, vars(block).get("forward")) for block in decoder_blocks(model)]
    for block, _ in before:
        block.forward = _compiled(block.forward)
    try:
        yield
    finally:
        for block, forward in before:
            del block.forward
            if forward is not None:
                block.forward = forward


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(forward, dynamic=True)

    def apply(*arguments: Any, **named: Any) -> Any:
        # Named past_key_values or layer_past, or not named, as the architecture has it.
        generating = any(isinstance(value, Cache) for value in (*arguments, *named.values()))
        return (forward if generating else compiled)(*arguments, **named)

    return apply
