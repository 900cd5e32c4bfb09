import pytest
from transformers import PreTrainedTokenizerFast

from selgen import tiny
from selgen.core import Example, ask
from selgen.data.chat import collate, encode, prompt_text

UNMARKED = (
    "{{ bos_token }}{% for m in messages %}{{ '<start> ' + m.role + ' ' + m.content + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start> assistant ' }}{% endif %}"
)
# Renders an assistant turn differently when it is the last: the prompt is then no prefix of the whole.
UNPREFIXED = (
    "{% for m in messages %}{{ '<start> ' + m.role + ' ' }}{{ 'right ' if loop.last else '' }}"
    "{{ m.content + ' <end> ' }}{% endfor %}{% if add_generation_prompt %}{{ 'yes ' }}{% endif %}"
)
TURNS = [
    {"role": "user", "content": "what is 1 ?"},
    {"role": "assistant", "content": "it is 2 ."},
    {"role": "user", "content": "right ?"},
    {"role": "assistant", "content": "no , 3 ."},
]


def learned(tokenizer, example) -> str:
    row = encode(tokenizer, example)
    return tokenizer.decode([i for i in row.labels if i != -100])


@pytest.fixture(params=[tiny.TEMPLATE, UNMARKED], ids=["marked", "unmarked"])
def tokenizer(request):
    return tiny.tokenizer(request.param)


def test_only_the_last_answer_and_its_end_token_are_learned(tokenizer):
    assert learned(tokenizer, Example(TURNS)) == "no , 3 . <end>"


def test_learn_all_takes_every_answer(tokenizer):
    assert learned(tokenizer, Example(TURNS, learn="all")) == "it is 2 . <end> no , 3 . <end>"


def test_the_prompt_text_is_how_the_training_text_begins(tokenizer):
    row = encode(tokenizer, Example(TURNS))
    prompt = tokenizer(prompt_text(tokenizer, TURNS[:3]), add_special_tokens=False)["input_ids"]
    assert row.input_ids[: len(prompt)] == prompt
    assert all(label == -100 for label in row.labels[: len(prompt)])
    assert row.labels[len(prompt)] != -100


def test_exactly_one_bos_and_no_empty_assistant_header_at_the_end(tokenizer):
    row = encode(tokenizer, Example(TURNS))
    assert row.input_ids.count(tokenizer.bos_token_id) == 1
    assert row.input_ids[-1] == tokenizer.convert_tokens_to_ids("<end>")


def test_a_second_bos_is_refused(tokenizer):
    with pytest.raises(ValueError, match="more than one BOS"):
        encode(tokenizer, ask("<bos> what", "yes"))


def test_an_overlong_example_is_refused_and_not_cut(tokenizer):
    with pytest.raises(ValueError, match=r"more than max_length=5, .* Raise training.max_length"):
        encode(tokenizer, Example(TURNS), max_length=5)


def test_a_template_whose_prompt_is_no_prefix_is_refused():
    with pytest.raises(ValueError, match="not the beginning of the whole conversation"):
        encode(tiny.tokenizer(UNPREFIXED), Example(TURNS))


def test_a_tokenizer_without_template_is_refused():
    bare = tiny.tokenizer()
    bare.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        encode(bare, Example(TURNS))


def test_a_byte_level_tokenizer_labels_the_answer_alone():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = UNMARKED.replace("{{ bos_token }}", "")
    assert learned(tokenizer, ask("2 × 3?", "it is 6 é.")) == "it is 6 é. <end>"


def test_collate_pads_on_the_right_to_the_longest_row(tokenizer):
    rows = [encode(tokenizer, ask("what", "yes")), encode(tokenizer, Example(TURNS))]
    tokens = collate(rows, [4, 7], pad_id=0)
    assert tokens.input_ids.shape == (2, len(rows[1].input_ids))
    assert tokens.attention_mask.sum(1).tolist() == [len(r.input_ids) for r in rows]
    assert tokens.ids.tolist() == [4, 7]
    assert tokens.num_targets == sum(label != -100 for r in rows for label in r.labels)
    assert tokens.predicts_BT.sum() == tokens.num_targets == len(tokens.targets_n)


def test_collate_of_nothing_has_no_rows():
    tokens = collate([], [], pad_id=0)
    assert tokens.input_ids.shape == (0, 0) and tokens.num_targets == 0


def test_positions_that_predict_come_one_before_the_label():
    from selgen.data.chat import Encoded

    tokens = collate([Encoded([5, 6, 7, 8], [-100, -100, 7, 8])], [0], pad_id=0)
    assert tokens.predicts_BT.tolist() == [[False, True, True, False]]
    assert tokens.targets_n.tolist() == [7, 8]
