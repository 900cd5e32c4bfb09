"""A word-level tokenizer with a chat template, for miniatures."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END, UNKNOWN = "<pad>", "<|user|>", "<|assistant|>", "<|end|>", "<|unknown|>"
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ ' ' + m.content }}<|end|>{% endgeneration %}"
    "{% else %}<|user|>{{ ' ' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# A word or number with the space before it, or one punctuation mark: joining the tokens gives the text back.
PIECES = Regex(r" ?\w+| ?[^\w\s]")


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Every word, number and punctuation mark of the texts is one token; anything else is unknown.

    Texts are read as they stand inside the template, that is after a space.
    """
    splitter = pre_tokenizers.Split(PIECES, behavior="isolated")
    words = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(f" {text}")}
    vocabulary = {word: i for i, word in enumerate([PAD, USER, ASSISTANT, END, UNKNOWN, *sorted(words)])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATE
    return made
