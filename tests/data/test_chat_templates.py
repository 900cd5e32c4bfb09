"""The real Qwen3 and Gemma templates: thinking off, no empty header, one BOS, and what is learned is what is sampled.

TRL ships each template as its model has it, and most again with `{% generation %}` marks (`..._training`).
"""

from pathlib import Path

import pytest
import trl
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from selgen import tiny
from selgen.core import Example, Message, ask
from selgen.data.chat import encode, encode_all, prompt_text
from selgen.generate import Generation, generate

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
QWEN3 = ["qwen3", "qwen3_training"]
GEMMA2 = ["gemma", "gemma_training"]
GEMMA3 = ["gemma3", "gemma3_training"]
GEMMA = [*GEMMA2, *GEMMA3]
ALL = [*QWEN3, *GEMMA]
TAKES_SYSTEM = [*QWEN3, *GEMMA3]

TURNS = [
    Message(role="user", content="What helps?"),
    Message(role="assistant", content="Tea."),
    Message(role="user", content="And then?"),
    Message(role="assistant", content="Rest\n\nwell."),
]
SYSTEM = Message(role="system", content="Be kind.")
ONE, MANY, TOLD = ask("What helps?", "Tea."), Example(TURNS), Example([SYSTEM, *TURNS])


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Bytes, pairs of line breaks and the family's special tokens are tokens; Gemma's adds a BOS unless told not to."""
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    backend = Tokenizer(BPE({name: i for i, name in enumerate(names)}, [("Ċ", "Ċ")]))
    lines = pre_tokenizers.Split(Regex(r"[\r\n]+"), behavior="isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([lines, bytewise])
    backend.decoder = decoders.ByteLevel()
    if name in GEMMA:
        named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
        special = ["<start_of_turn>", "<end_of_turn>"]
    else:
        named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        special = ["<|im_start|>"]
    made = PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=special, **named)
    if name in GEMMA:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", made.bos_token_id)]
        )
    made.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return made


def text(name: str, example: Example) -> str:
    made = tokenizer(name)
    return made.decode(encode(made, example).input_ids)


def learned(name: str, example: Example) -> str:
    made = tokenizer(name)
    return made.decode([i for i in encode(made, example).labels if i != -100])


def asked(made: PreTrainedTokenizerFast, example: Example) -> list[int]:
    """The token ids that a model is really given to answer the example's prompt."""
    model = tiny.model("llama", vocab_size=len(made), max_position_embeddings=512)
    given = []

    def spy(input_ids, attention_mask, **_):
        given.append(input_ids[0][attention_mask[0].bool()].tolist())
        return input_ids

    model.generate = spy
    generate(model, made, [example], Generation(max_new_tokens=1))
    return given[0]


def test_qwen3_is_trained_with_thinking_off_and_no_header_at_the_end():
    thoughts = "<think>\n\n</think>\n\n"
    assert text("qwen3", MANY) == (
        "<|im_start|>user\nWhat helps?<|im_end|>\n<|im_start|>assistant\nTea.<|im_end|>\n"
        f"<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n{thoughts}Rest\n\nwell.<|im_end|>\n"
    )


def test_qwen3_is_asked_with_thinking_off():
    assert prompt_text(tokenizer("qwen3"), ONE.prompt) == (
        "<|im_start|>user\nWhat helps?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


@pytest.mark.parametrize("name", GEMMA)
def test_gemma_is_trained_with_one_bos_and_no_header_at_the_end(name):
    assert text(name, MANY) == (
        "<bos><start_of_turn>user\nWhat helps?<end_of_turn>\n<start_of_turn>model\nTea.<end_of_turn>\n"
        "<start_of_turn>user\nAnd then?<end_of_turn>\n<start_of_turn>model\nRest\n\nwell.<end_of_turn>\n"
    )


@pytest.mark.parametrize("name", GEMMA)
def test_gemma_has_exactly_one_bos_in_training_and_in_asking(name):
    made = tokenizer(name)
    assert made(prompt_text(made, MANY.prompt))["input_ids"].count(made.bos_token_id) == 2  # what must not happen
    assert encode(made, MANY).input_ids.count(made.bos_token_id) == 1
    assert asked(made, MANY).count(made.bos_token_id) == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("example", [ONE, MANY], ids=["one turn", "two turns"])
def test_the_answer_and_its_end_of_turn_are_learned_and_nothing_else(name, example):
    end = "<end_of_turn>" if name in GEMMA else "<|im_end|>"
    assert learned(name, example) == example.completion + end


@pytest.mark.parametrize(
    ("name", "example"),
    [*[(name, x) for name in ALL for x in (ONE, MANY)], *[(name, TOLD) for name in TAKES_SYSTEM]],
)
def test_what_is_learned_goes_on_from_exactly_what_a_model_is_asked(name, example):
    made = tokenizer(name)
    row, prompt = encode(made, example), asked(made, example)
    answer = [i for i in row.labels if i != -100]
    line_break = made("\n", add_special_tokens=False)["input_ids"]
    assert row.input_ids == prompt + answer + line_break
    assert row.labels == [-100] * len(prompt) + answer + [-100]


@pytest.mark.parametrize("name", [*GEMMA, "qwen3_training"])
def test_every_answer_is_learned_where_the_template_writes_all_turns_alike(name):
    end = "<end_of_turn>" if name in GEMMA else "<|im_end|>"
    assert learned(name, Example(TURNS, learn="all")) == f"Tea.{end}Rest\n\nwell.{end}"


def test_qwen3_cannot_learn_earlier_answers_which_it_is_shown_without_the_thoughts_of_their_prompt():
    with pytest.raises(ValueError, match=r"not the beginning of .* Make one example of each answer \(learn='last'\)"):
        encode(tokenizer("qwen3"), Example(TURNS, learn="all"))


def test_thoughts_in_an_answer_are_refused_since_it_is_asked_with_thinking_off():
    with pytest.raises(ValueError, match="would not be what is sampled: .*Leave thoughts out of the answer"):
        encode(tokenizer("qwen3"), ask("What helps?", "<think>\nTea?\n</think>\n\nTea."))


def test_empty_thoughts_in_an_answer_are_those_of_the_prompt():
    assert text("qwen3", ask("What helps?", "<think>\n\n</think>\n\nTea.")) == text("qwen3", ONE)


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "deepseek_r1_distill_training"])
def test_a_template_whose_prompt_opens_thoughts_in_any_case_is_refused(name):
    with pytest.raises(ValueError, match="choose a model that can be asked with thinking off"):
        encode(tokenizer(name), ONE)


@pytest.mark.parametrize("use", [lambda made: encode(made, TOLD), lambda made: asked(made, TOLD)])
@pytest.mark.parametrize("name", GEMMA2)
def test_gemma_2_refuses_a_system_turn_and_the_error_says_where_to_put_its_text(name, use):
    with pytest.raises(ValueError, match="System role not supported.* at the beginning of the first user turn"):
        use(tokenizer(name))


def test_every_example_with_a_refused_system_turn_is_named():
    with pytest.raises(ValueError) as caught:
        encode_all(tokenizer("gemma"), [TOLD, ONE, TOLD], name="task")
    first, second = str(caught.value).splitlines()
    assert first.startswith("task example 1 ('Be kind.'): the model's chat template refuses the conversation")
    assert second.startswith("task example 3 ")


@pytest.mark.parametrize("name", GEMMA3)
def test_gemma_3_folds_a_system_turn_into_the_first_user_turn(name):
    assert text(name, TOLD).startswith("<bos><start_of_turn>user\nBe kind.\n\nWhat helps?<end_of_turn>\n")


def test_qwen3_has_a_system_turn():
    assert text("qwen3", TOLD).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat helps?")


@pytest.mark.parametrize("use", [lambda made: encode(made, TOLD), lambda made: prompt_text(made, TOLD.prompt)])
def test_a_template_that_would_leave_a_system_turn_out_is_refused(use):
    made = tokenizer("qwen3")
    made.chat_template = "{% if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}" + (
        made.chat_template
    )
    assert "What helps?" in made.decode(encode(made, ONE).input_ids)
    with pytest.raises(ValueError, match="leaves out the system turn 'Be kind.'"):
        use(made)


def test_an_answer_that_begins_with_a_line_break_is_not_joined_with_its_header():
    # Qwen2.5 keeps the line break, and a tokenizer makes one token of it and the header's.
    made, example = tokenizer("qwen2_5"), ask("What helps?", "\nTea.")
    row, prompt = encode(made, example), asked(made, example)
    whole = made(made.decode(row.input_ids), add_special_tokens=False)["input_ids"]
    assert whole[: len(prompt)] != prompt
    assert row.input_ids[: len(prompt)] == prompt
    assert learned("qwen2_5", example) == "\nTea.<|im_end|>"


@pytest.mark.parametrize("name", ALL)
def test_generation_stops_at_the_end_that_is_learned_though_no_setting_names_it(name):
    """Gemma's model settings may name <eos> alone, while its template ends turns with another token."""
    from selgen.generate import _generation_config

    made, model = tokenizer(name), tiny.model()
    model.generation_config.eos_token_id = None
    end = [i for i in encode(made, ONE).labels if i != -100][-1]
    stops = _generation_config(model, made, Generation()).eos_token_id
    assert end in stops
    assert made.decode([end]) in ("<|im_end|>", "<end_of_turn>")
