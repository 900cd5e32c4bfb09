"""Random models of a few thousand weights, of the real architectures, with a real tokenizer: for tests and checks."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from selgen.core import Example, ask

WORDS = [
    *("user", "assistant", "is", "the", "capital", "of", "France", "Italy", "Paris", "Rome"),
    *("yes", "no", "what", "gcd", "it", "right", ".", "?", ",", *"123456789"),
]
SPECIAL = ["<pad>", "<bos>", "<start>", "<end>", "<unk>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<start> ' + m.role + ' ' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + ' <end>' }}{% endgeneration %}{{ ' ' }}"
    "{% else %}{{ m.content + ' <end> ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start> assistant ' }}{% endif %}"
)
ARCHITECTURES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}
SIZES = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 3,
}


def tokenizer(template: str = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token per word of `WORDS`, with a chat template that marks the assistant's answers."""
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<end>", unk_token="<unk>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<start>"]})
    made.chat_template = template
    return made


def model(architecture: str = "qwen3", seed: int = 0, **changes: Any) -> Any:
    """A random float32 model; its weights depend on the seed alone, the global random state is left as it was."""
    config_class, model_class = ARCHITECTURES[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model_class(config_class(**SIZES | changes))
        # Freshly initialised layers barely change their input; larger weights make differences visible.
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    if architecture == "gemma2":
        made.set_attn_implementation("eager")
    return made


def task_data(num: int = 10) -> list[Example]:
    """Answers of unequal lengths."""
    return [
        ask(f"what is the gcd of {i % 9 + 1} {i % 7 + 1} ?", f"it is {'right ' * (i % 3)}{i % 5 + 1} .")
        for i in range(num)
    ]


def align_data(num: int = 3) -> list[Example]:
    """Wrong proposals rejected, each with a `rejected` answer that agrees."""
    return [
        ask(
            f"the capital of {c} is {w} {i % 9 + 1} ?",
            f"no , it is {'right ' * (i % 2)}{r} .",
            rejected="yes , right .",
        )
        for i in range(num)
        for c, w, r in [("France", "Rome", "Paris") if i % 2 else ("Italy", "Paris", "Rome")]
    ]
