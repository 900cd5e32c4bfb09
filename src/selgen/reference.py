"""The frozen starting model, and what methods need of it kept over training: in memory, or on disk for other runs too.

Legend: B rows, n positions that predict a completion token, D hidden width, V vocabulary, L layers.
"""

from __future__ import annotations

import copy
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from peft import PeftModel
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from selgen import ranks, stored
from selgen.core import Kept, Stream, Tokens
from selgen.data.chat import IGNORE, Encoded, collate
from selgen.lm import (
    REFERENCE_BATCH,
    adapter_off,
    block_outputs,
    check_head,
    completion_hidden,
    head,
    sequence_logprobs,
    unwrap,
)

VERSION = 1
"""Part of a file's key: raise it when this file changes what is stored."""
FOREIGN = "transformers_modules"
"""The package that transformers makes of code that lies beside weights (`trust_remote_code`)."""
MEMORY_BYTES = 1 << 26
"""Largest cache that stays in memory; a larger one goes to disk, where the other runs of a sweep find it."""
MAX_LAYERS_BYTES = 1 << 30
"""Largest cache of all layers' outputs; beyond it they are computed live, and `FrozenReference.kept` says so."""


@dataclass(frozen=True)
class _Kind:
    """How one thing that a reference keeps is computed for a batch, and how much of it belongs to a row.

    Attributes:
        live: The values of all rows, one after another.
        num_values: Of a row.
        size: Numbers in a value, given the model's config.
    """

    live: Callable[[nn.Module, Tokens], Tensor]
    num_values: Callable[[Encoded], int]
    size: Callable[[Any], int]


_KINDS: dict[Kept, _Kind] = {
    "hidden": _Kind(
        completion_hidden, lambda row: sum(x != IGNORE for x in row.labels[1:]), lambda config: config.hidden_size
    ),
    "layers": _Kind(
        lambda model, tokens: torch.stack(block_outputs(model, tokens), dim=1),
        lambda row: len(row.input_ids),
        lambda config: config.hidden_size * config.num_hidden_layers,
    ),
    "logprobs": _Kind(sequence_logprobs, lambda row: 1, lambda config: 1),
}


class FrozenReference:
    """The starting model, frozen. Implements `selgen.core.Reference`.

    With an adapter it is the same weights with the adapter off: no second copy. With full fine-tuning it is a frozen
    copy, made at construction and the only one: it lies in main memory, where the length of the update is read from it
    too (`start`), and comes to the trained model's device while something is asked that is not kept (`park`).
    `precompute` caches what is constant over training, in the compute dtype: in memory where it is small, else on disk,
    keyed by the weights, the token rows and the dtype, where other runs find it. The chat template is in the token
    rows. Runs that train weights of the model itself keep everything in memory.

    Args:
        model: The model about to be trained (unwrapped).
        rows: The token rows of each stream, for `precompute`.
        pad_id: Padding token.
        use_cache: False computes everything live.
        frozen: The model is not going to be trained, so a full one needs no copy.
        progress: Show a bar while something is computed for the disk, if there is a terminal to show it on.

    Attributes:
        kept: What is cached and where, or why it is not, by stream and kind.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Mapping[Stream, Sequence[Encoded]],
        pad_id: int,
        use_cache: bool = True,
        frozen: bool = False,
        progress: bool = False,
    ) -> None:
        self._rows = rows
        self._pad_id = pad_id
        self._adapted = model if isinstance(model, PeftModel) else None
        self._trained = model
        self._copied = self._adapted is None and not frozen
        if self._copied:
            model = copy.deepcopy(model).eval().requires_grad_(False)
        self._model = model
        self._parked = True
        self._all_kept = True
        # Switching adapters off walks the whole model; a head that is frozen anyway needs no such care.
        output = unwrap(model).get_output_embeddings()
        self._plain_head = type(output) is nn.Linear and not output.weight.requires_grad
        self.caches = use_cache
        self.kept: dict[str, str] = {}
        self._cache: dict[Kept, dict[bytes, Tensor]] = {kind: {} for kind in _KINDS}
        self._progress = progress and sys.stderr.isatty()
        self._weights: str | None = None

    @property
    def copies_model(self) -> bool:
        """True if the reference holds its own weights (full fine-tuning)."""
        return self._adapted is None

    def models(self, trained: nn.Module) -> list[nn.Module]:
        """The trained model, and the copy that the reference holds beside it, if any."""
        return [trained, self._model] if self._copied else [trained]

    @property
    def start(self) -> dict[str, Tensor]:
        """The starting weights by name, if the reference holds its own; else none."""
        return {name: p.detach() for name, p in self._model.named_parameters()} if self._copied else {}

    def park(self) -> None:
        """Free the trained model's device of a copy if all that the method asked for is kept.

        The head comes back where it is used, the whole copy with the next live value.
        """
        if self._copied and self._all_kept:
            self._model.to("cpu")
            self._parked = True

    @property
    def _device(self) -> torch.device:
        return unwrap(self._trained).device

    def _bring(self) -> None:
        """A copy to where the trained model is."""
        if self._copied and self._parked:
            self._model.to(self._device)
            self._parked = False

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, V] logits of the starting model for its last hidden states [n, D]."""
        if self._parked and self._copied:
            unwrap(self._model).get_output_embeddings().to(hidden_nD.device)
        with torch.no_grad() if self._plain_head else self._frozen():
            return head(self._model)(hidden_nD)

    def precompute(self, stream: Stream, what: Kept = "hidden") -> None:
        """Cache a whole stream, once, in a fixed order (so that a resumed run sees equal bits)."""
        name, rows = f"{what} of {stream}", self._rows[stream]
        if not self.caches:
            self.kept[name] = "computed at every step: the cache is off"
            self._all_kept = False
            return
        needed = self._num_bytes(rows, what)
        if what == "layers" and needed > MAX_LAYERS_BYTES:
            self.kept[name] = f"computed at every step: {needed / 1e9:.1f} GB would be too large to cache"
            self._all_kept = False
            return
        if needed > MEMORY_BYTES and self._trains_only_adapters():
            values, where = self._on_disk(rows, what)
        else:
            values, where = self._compute(rows, what, self._device), ""
        self.kept[name] = f"cached{where}, {values.nbytes / 1e6:.1f} MB"
        sizes = [_KINDS[what].num_values(row) for row in rows]
        self._cache[what].update(zip(map(_row_key, rows), values.split(sizes), strict=True))

    def hidden(self, tokens: Tokens) -> Tensor:
        """[n, D] last hidden states (after the final norm) at the positions that predict completion tokens."""
        return self._get("hidden", tokens)

    def layers(self, tokens: Tokens) -> Sequence[Tensor]:
        """Every block's output, first to last, before the final norm: each [n, D] over the n real tokens."""
        return self._get("layers", tokens).unbind(1)

    def logprobs(self, tokens: Tokens) -> Tensor:
        """[B] log-probability of each row's completion, summed over its tokens, in nats (float32)."""
        return self._get("logprobs", tokens)

    def _get(self, what: Kept, tokens: Tokens) -> Tensor:
        """From the cache if every row is there, else live."""
        if cache := self._cache[what]:
            found = [values for key in _keys(tokens) if (values := cache.get(key)) is not None]
            if len(found) == tokens.num_rows:
                return torch.cat(found).to(tokens.input_ids.device)
        return self._live(what, tokens)

    def _live(self, what: Kept, tokens: Tokens) -> Tensor:
        self._bring()
        with self._frozen():
            return _KINDS[what].live(self._model, tokens)

    def _on_disk(self, rows: Sequence[Encoded], what: Kept) -> tuple[Tensor, str]:
        """The values of all rows, memory-mapped, and where they come from; computed and written if they are not there.

        A disk that cannot be written keeps them in memory.
        """
        path = stored.path_for("reference", self._key(rows, what))
        with ranks.local_first():
            if (values := stored.read(path)) is not None:
                return values, " on disk by an earlier run"
            values = self._compute(rows, what, torch.device("cpu"), shown=self._progress)
            problem = stored.write(path, values)
            if problem is None and (mapped := stored.read(path)) is not None:
                return mapped, " on disk"
            return values, f" in memory because it could not be written to disk ({problem})"

    def _compute(self, rows: Sequence[Encoded], what: Kept, device: torch.device, shown: bool = False) -> Tensor:
        self._bring()
        kind, values, done = _KINDS[what], torch.empty(0), 0
        starts = range(0, len(rows), REFERENCE_BATCH)
        bar = {"description": f"reference: {what}", "console": Console(stderr=True), "transient": True}
        for start in track(starts, disable=not shown, **bar):
            part = rows[start : start + REFERENCE_BATCH]
            tokens = collate(part, range(start, start + len(part)), self._pad_id).to(self._model.device)
            if what == "hidden" and start == 0:
                check_head(self._model, tokens)
            found = self._live(what, tokens)
            if start == 0:
                total = sum(map(kind.num_values, rows))
                values = torch.empty(total, *found.shape[1:], dtype=found.dtype, device=device)
            values[done : done + len(found)] = found
            done += len(found)
        return values

    def _num_bytes(self, rows: Sequence[Encoded], what: Kept) -> int:
        kind, dtype = _KINDS[what], next(self._model.parameters()).dtype
        config = unwrap(self._model).config.get_text_config()
        return sum(map(kind.num_values, rows)) * kind.size(config) * dtype.itemsize

    def _trains_only_adapters(self) -> bool:
        trained = [name for name, p in self._model.named_parameters() if p.requires_grad]
        return self._adapted is not None and all(".lora_" in name for name in trained)

    def _key(self, rows: Sequence[Encoded], what: Kept) -> str:
        """Everything that decides the values, down to rounding."""
        inner = unwrap(self._model)
        if self._weights is None:
            plain = {name.replace(".base_layer.", "."): t for name, t in inner.state_dict().items()}
            self._weights = stored.weights({name: t for name, t in plain.items() if ".lora_" not in name})
        device, code = inner.device.type, type(inner).__module__
        computed = {
            "version": VERSION,
            "what": what,
            "weights": self._weights,
            "config": inner.config.to_diff_dict(),
            "attention": inner.config._attn_implementation,
            "compiled": any("forward" in vars(part) for part in inner.modules()),
            "products": torch.get_float32_matmul_precision(),
            # Of code that came with the weights; what is transformers' own, its version tells.
            "code": inspect.getsource(sys.modules[code]) if code.startswith(FOREIGN) else None,
            "device": device,
            "autocast": str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None,
            "batch": REFERENCE_BATCH,
            "made by": [torch.__version__, transformers.__version__],
        }
        computed["config"].pop("_name_or_path", None)  # where it lies is not what it is
        return stored.digest([json.dumps(computed, sort_keys=True, default=str).encode(), *map(_row_key, rows)])

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        if self._adapted is not None:
            with adapter_off(self._adapted):
                yield
        else:
            with torch.no_grad():
                yield


def _row_key(row: Encoded) -> bytes:
    """What a cached row depends on: its tokens and which of them are learned; not how it is padded."""
    return torch.tensor([row.input_ids, row.labels]).numpy().tobytes()


def _keys(tokens: Tokens) -> list[bytes]:
    """`_row_key` of each row of a batch."""
    ids, labels, real = tokens.input_ids.cpu(), tokens.labels.cpu(), tokens.attention_mask.cpu().bool()
    return [torch.stack([i[m], t[m]]).numpy().tobytes() for i, t, m in zip(ids, labels, real, strict=True)]
