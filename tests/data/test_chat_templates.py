"""The real Qwen3 and Gemma templates: thinking off, no empty header, one BOS, and what is trained is what is asked."""

from pathlib import Path

import pytest
import trl
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from selgen.core import ask
from selgen.data.chat import encode, prompt_text

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
SPECIAL = {
    "qwen3": ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"],
    "gemma": ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"],
}
HEADER = {"qwen3": "<|im_start|>assistant", "gemma": "<start_of_turn>model"}
END = {"qwen3": "<|im_end|>", "gemma": "<end_of_turn>"}


def tokenizer(name: str, family: str) -> PreTrainedTokenizerFast:
    """Words and line breaks are tokens, and so are the family's special tokens."""
    words = [
        "system",
        "user",
        "assistant",
        "model",
        "What",
        " helps",
        "?",
        "Rest",
        " well",
        ".",
        "\n",
        "Be",
        " kind",
        " ",
        "\n\n",
    ]
    vocabulary = {word: i for i, word in enumerate(["[unk]", *SPECIAL[family], *words])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[unk]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+| ?\w+| ?[^\w\s]| "), behavior="isolated")
    backend.decoder = decoders.Fuse()
    ends = {"qwen3": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}}
    named = ends.get(family, {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"})
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[unk]", additional_special_tokens=SPECIAL[family], **named
    )
    made.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return made


CASES = [("qwen3", "qwen3"), ("gemma", "gemma")]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_the_trained_text_has_one_header_and_ends_with_its_answer(name, family):
    made = tokenizer(name, family)
    row = encode(made, ask("What helps?", "Rest well."))
    text = made.decode(row.input_ids)
    assert text.count(HEADER[family]) == 1
    assert text.rstrip().endswith(f"Rest well.{END[family]}")


@pytest.mark.parametrize(("name", "family"), CASES)
def test_only_the_answer_and_its_end_are_learned(name, family):
    made = tokenizer(name, family)
    row = encode(made, ask("What helps?", "Rest well."))
    learned = made.decode([i for i in row.labels if i != -100])
    assert learned.split("</think>")[-1].strip() == f"Rest well.{END[family]}"


@pytest.mark.parametrize(("name", "family"), CASES)
def test_the_trained_text_goes_on_from_the_prompt_that_is_asked(name, family):
    made = tokenizer(name, family)
    text = made.decode(encode(made, ask("What helps?", "Rest well.")).input_ids)
    assert text.startswith(prompt_text(made, ask("What helps?", "").prompt))


def test_qwen3_is_asked_with_thinking_off():
    prompt = prompt_text(tokenizer("qwen3", "qwen3"), ask("What helps?", "").prompt)
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_gemma_has_exactly_one_bos_in_training_and_in_asking():
    made = tokenizer("gemma", "gemma")
    assert encode(made, ask("What helps?", "Rest well.")).input_ids.count(made.bos_token_id) == 1
    prompt = prompt_text(made, ask("What helps?", "").prompt)
    assert made(prompt, add_special_tokens=False)["input_ids"].count(made.bos_token_id) == 1
