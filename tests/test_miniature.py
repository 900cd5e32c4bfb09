import json
import subprocess
import sys

import pytest
import torch

from selgen import miniature, models, words
from selgen.core import Corpus, ask
from selgen.data.chat import prompt_text

STAGE = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3}
SMALL = {"pretrain": STAGE, "instruct": STAGE, "width": 16, "layers": 1, "mlp_width": 16}


def document(i):
    return f"Q: what is {i % 9}? A: it is {i % 9}."


def answer(i):
    return ask(f"what is {i % 9}?", f"it is {i % 9}.")


def corpus(**changes):
    texts = [document(i) for i in range(9)]
    return Corpus(pretrain=document, instruct=answer, texts=texts, recipe=SMALL | changes)


def test_text_survives_tokenization():
    text = "Let me check: 48 = 2 × 18 + 12, isn't it?"
    tokenizer = words.tokenizer([text])
    assert tokenizer.decode(tokenizer(f" {text}")["input_ids"]).strip() == text


def test_a_word_or_number_is_one_token():
    tokenizer = words.tokenizer(["the answer is 48."])
    assert tokenizer.tokenize(" the answer is 48.") == [" the", " answer", " is", " 48", "."]


def test_a_miniature_is_an_ordinary_model_directory_in_both_stages(tmp_path):
    paths = miniature.build(corpus(), tmp_path)
    model, tokenizer = models.load(paths.instruct)
    pretrained, _ = models.load(paths.pretrained)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), pretrained.parameters(), strict=True))
    prompt = tokenizer(prompt_text(tokenizer, answer(3).prompt), add_special_tokens=False, return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] <= prompt["input_ids"].shape[1] + 3


def test_the_second_build_comes_from_the_cache(tmp_path):
    first = miniature.build(corpus(), tmp_path)
    steps = []
    assert miniature.build(corpus(), tmp_path, progress=lambda done, total: steps.append(done)) == first
    assert not steps


def test_a_build_is_deterministic_and_its_seed_matters(tmp_path):
    weights = [
        models.fingerprint(miniature.build(corpus(), tmp_path / str(i), seed=seed).instruct)
        for i, seed in enumerate([0, 0, 1])
    ]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    "other",
    [
        corpus(layers=2),
        Corpus(lambda i: document(i + 1), answer, corpus().texts, SMALL),
        Corpus(document, lambda i: answer(i + 1), corpus().texts, SMALL),
        Corpus(document, answer, [*corpus().texts, "more"], SMALL),
    ],
    ids=["recipe", "documents", "chats", "vocabulary"],
)
def test_the_key_follows_everything_that_decides_the_weights(other):
    assert miniature.key(other) != miniature.key(corpus()) == miniature.key(corpus())


def test_an_unknown_word_is_an_error_and_leaves_no_cache(tmp_path):
    bad = Corpus(lambda i: "strange words", answer, corpus().texts, SMALL)
    with pytest.raises(ValueError, match=r"unknown words in 'strange words'\. Add the words to corpus\.texts"):
        miniature.build(bad, tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_progress_counts_the_steps_of_both_stages(tmp_path):
    seen = []
    miniature.build(corpus(), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]


@pytest.mark.slow
def test_a_miniature_does_not_depend_on_the_process(tmp_path):
    """Hash randomisation and the order of sets must not reach the weights."""
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); torch.set_num_threads(1)\n"
        "from test_miniature import corpus; from selgen import miniature, models; from pathlib import Path\n"
        "print(models.fingerprint(miniature.build(corpus(), Path(sys.argv[2])).instruct))"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, __file__.rsplit("/", 1)[0], str(tmp_path / "elsewhere")],
        env={"PYTHONHASHSEED": "1", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert elsewhere == models.fingerprint(miniature.build(corpus(), tmp_path / "here").instruct)


def test_the_recipe_is_plain_json():
    assert miniature.recipe(corpus()).pretrain.steps == json.loads(json.dumps(SMALL))["pretrain"]["steps"]
