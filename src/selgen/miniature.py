"""Builds a miniature: a small causal language model trained here from a setting's corpus, in two stages, cached.

`pretrain` learns plain documents by many authors; `instruct` goes on from it with an assistant. Both are kept as
ordinary Hugging Face model directories, so that a miniature takes the same path as any other model.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from selgen import caches, words
from selgen.core import Corpus, Example
from selgen.data.chat import Encoded, collate, encode

VERSION = 1
"""Part of the cache key: raise it when this file changes what a recipe gives."""
PROBED = 200
"""Documents of each stage whose text goes into the cache key."""
WINDOW = 16
"""Batches over which rows are sorted by length, so that little is padded."""

Progress = Callable[[int, int], None]
"""Told the steps done and their total, over both stages."""


@dataclass(frozen=True)
class Stage:
    """One stage's training: `steps` batches of `batch_size` documents, cosine schedule to 5 % of `learning_rate`."""

    steps: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """How a miniature is trained; the numbers of `Corpus.recipe`.

    Attributes:
        pretrain: First stage.
        instruct: Second stage.
        width: Hidden width D; heads are a quarter of it wide.
        layers: Decoder layers.
        mlp_width: Intermediate width.
        initializer_range: Standard deviation of the initial weights.
    """

    pretrain: Stage
    instruct: Stage
    width: int = 96
    layers: int = 3
    mlp_width: int = 256
    initializer_range: float = 0.02


@dataclass(frozen=True)
class MiniaturePaths:
    """Where a built miniature lies.

    Attributes:
        pretrained: Model directory after the first stage.
        instruct: Model directory after the second stage, the model that a setting starts from.
        key: Hash of corpus, recipe and seed.
    """

    pretrained: Path
    instruct: Path
    key: str


def recipe(corpus: Corpus) -> Recipe:
    """The corpus's recipe, typed."""
    stages = {name: Stage(**corpus.recipe[name]) for name in ("pretrain", "instruct")}
    return Recipe(**{**corpus.recipe, **stages})


def key(corpus: Corpus, seed: int = 0) -> str:
    """16 hex digits over everything that decides the weights."""
    probe = [corpus.pretrain(i) for i in range(PROBED)], [_plain(corpus.instruct(i)) for i in range(PROBED)]
    content = json.dumps([VERSION, seed, dict(corpus.recipe), sorted(set(corpus.texts)), probe], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def build(
    corpus: Corpus, cache_dir: Path | None = None, seed: int = 0, progress: Progress = lambda done, total: None
) -> MiniaturePaths:
    """The miniature of a corpus: from the cache, else trained (one thread, a few minutes) and cached.

    Safe to call from several processes: one trains, the others wait for it.

    Args:
        corpus: What to train on.
        cache_dir: Default: `selgen/miniatures` in the user's cache directory (XDG_CACHE_HOME).
        seed: Of the initial weights and of the order of batches.
        progress: Called after every step.

    Raises:
        ValueError: a document has a word that is not in `corpus.texts`.
    """
    home = cache_dir or caches.home() / "miniatures"
    name = key(corpus, seed)
    paths = MiniaturePaths(home / name / "pretrained", home / name / "instruct", name)
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / f"{name}.lock"):
        if not (home / name).is_dir():
            with tempfile.TemporaryDirectory(dir=home) as scratch:
                made = Path(scratch) / "made"
                _train(corpus, seed, made, progress)
                shutil.move(made, home / name)
    return paths


def _train(corpus: Corpus, seed: int, directory: Path, progress: Progress) -> None:
    disable_progress_bar()  # transformers' bars for writing weights, beside the caller's
    tokenizer = words.tokenizer(corpus.texts)
    numbers = recipe(corpus)
    set_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=numbers.width,
            intermediate_size=numbers.mlp_width,
            num_hidden_layers=numbers.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=numbers.width // 4,
            max_position_embeddings=512,
            initializer_range=numbers.initializer_range,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=cast(int, tokenizer.eos_token_id),
            pad_token_id=cast(int, tokenizer.pad_token_id),
        )
    )
    total = numbers.pretrain.steps + numbers.instruct.steps
    stages: list[tuple[str, Stage, Callable[[int], Example | str], int]] = [
        ("pretrained", numbers.pretrain, corpus.pretrain, 0),
        ("instruct", numbers.instruct, corpus.instruct, numbers.pretrain.steps),
    ]
    for name, stage, document, before in stages:
        report = partial(_report, progress, before, total)
        _Stage(model, tokenizer, stage, document, seed, directory.parent, report).train()
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


class _Stage(Trainer):
    """Trainer over ready-made batches, in order."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerFast,
        stage: Stage,
        document: Callable[[int], Example | str],
        seed: int,
        scratch: Path,
        progress: Callable[[int], None],
    ) -> None:
        args = TrainingArguments(
            output_dir=str(scratch),
            max_steps=stage.steps,
            per_device_train_batch_size=1,
            learning_rate=stage.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.05},
            warmup_steps=min(50, stage.steps // 4),
            weight_decay=0.1,
            adam_beta2=0.98,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=_Batches(tokenizer, stage, document, seed),
            data_collator=lambda batches: batches[0],
            callbacks=[_Report(progress)],
        )
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        return SequentialSampler(cast(Any, self.train_dataset))


@dataclass
class _Report(TrainerCallback):
    progress: Callable[[int], None]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress(state.global_step)


@dataclass
class _Batches(Dataset):
    """Batch i of a stage, a pure function of i: documents of a window sorted by length, its batches shuffled."""

    tokenizer: PreTrainedTokenizerFast
    stage: Stage
    document: Callable[[int], Example | str]
    seed: int
    _window: Callable[[int], list[list[Encoded]]] = field(init=False)

    def __post_init__(self) -> None:
        self._window = lru_cache(maxsize=1)(self._make_window)

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        rows = self._window(i // WINDOW)[i % WINDOW]
        tokens = collate(rows, range(len(rows)), cast(int, self.tokenizer.pad_token_id))
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask, "labels": tokens.labels}

    def _make_window(self, window: int) -> list[list[Encoded]]:
        size = self.stage.batch_size
        first = window * WINDOW * size
        rows = [self._encode(self.document(i)) for i in range(first, first + WINDOW * size)]
        rows.sort(key=lambda row: len(row.input_ids))
        batches = [rows[k : k + size] for k in range(0, len(rows), size)]
        random.Random(f"{self.seed}:{window}").shuffle(batches)
        return batches

    def _encode(self, document: Example | str) -> Encoded:
        if isinstance(document, Example):
            row = encode(self.tokenizer, document)
        else:
            ids = self.tokenizer(f" {document}{words.END}")["input_ids"]
            row = Encoded(cast(list[int], ids), cast(list[int], ids))
        if self.tokenizer.unk_token_id in row.input_ids:
            raise ValueError(
                f"corpus.texts should contain every word of the documents; unknown words in {_plain(document)!r}. "
                "Add the words to corpus.texts."
            )
        return row


def _plain(document: Example | str) -> str:
    if isinstance(document, str):
        return document
    return " | ".join(f"{m['role']}: {m['content']}" for m in document.messages)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
