"""Models from the hub: pinned by commit, and clear when they cannot be had. The hub is a double of this suite."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import _http
from peft import AutoPeftModelForCausalLM

import fakes
import hub_double
from command import selgen
from hub_double import COMMITS, GATED, MODEL
from selgen import hub, models, record, tiny
from test_run import TRAINING


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    """Two revisions of one model, with other weights."""
    found = {}
    for seed, branch in enumerate(COMMITS):
        found[branch] = tmp_path_factory.mktemp(branch)
        tiny.model(seed=seed).save_pretrained(found[branch])
        tiny.tokenizer().save_pretrained(found[branch])
    return found


@pytest.fixture
def asked(monkeypatch, tmp_path, revisions):
    with hub_double.serving(monkeypatch, tmp_path / "hub", revisions) as paths:
        yield paths


def run_yaml(path, **changes):
    data = {
        "setting": "fake",
        "model": MODEL,
        "method": "task_only",
        "training": TRAINING | {"num_train_epochs": 1},
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 2, "splits": ["val"]},
    }
    path.write_text(yaml.safe_dump(data | changes))
    return path


def weight(model) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach()


@pytest.mark.slow
def test_a_revision_is_loaded_as_pinned_and_a_hub_id_alone_is_its_main_branch(asked, revisions):
    assert not torch.equal(*(weight(models.load(revisions[branch])[0]) for branch in COMMITS))
    for name, branch in [(MODEL, "main"), (f"{MODEL}@first", "first"), (f"{MODEL}@{COMMITS['first']}", "first")]:
        model, _ = models.load(name)
        assert torch.equal(weight(model), weight(models.load(revisions[branch])[0]))
        assert models.described(model)["commit"] == COMMITS[branch]
        assert models.fingerprint(name) == f"{MODEL}@{COMMITS[branch]}"
    assert (
        models.StoredWeights(f"{MODEL}@first")
        .read("model.embed_tokens")
        .equal(models.StoredWeights(str(revisions["first"])).read("model.embed_tokens"))
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "branch"), [(MODEL, "main"), ({"name": MODEL, "revision": "first"}, "first")])
def test_a_run_records_the_commit_and_its_adapter_opens_on_it(asked, revisions, tmp_path, model, branch):
    code, said = selgen("train", "-c", run_yaml(tmp_path / "run.yaml", model=model), "--out", tmp_path / "out")
    assert code == 0, said
    [found] = record.read_all(tmp_path / "out")
    assert found.provenance["model"]["commit"] == COMMITS[branch]
    assert found.model == MODEL
    adapter = tmp_path / "out" / found.run_id / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (MODEL, COMMITS[branch])
    opened = AutoPeftModelForCausalLM.from_pretrained(adapter)
    assert torch.equal(weight(opened), weight(models.load(revisions[branch])[0]))
    assert models.described(models.load(adapter)[0])["commit"] == COMMITS[branch]
    assert selgen("eval", tmp_path / "out" / found.run_id, "--split", "val")[0] == 0


@pytest.mark.slow
def test_what_was_downloaded_is_found_offline(asked, monkeypatch):
    models.load(f"{MODEL}@first")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(asked)
    assert models.fingerprint(f"{MODEL}@{COMMITS['first']}") == f"{MODEL}@{COMMITS['first']}"
    assert len(asked) == before


# -- models that cannot be had --


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (GATED, r"model.name is the gated model 'tiny/gated', and no token was given "
         r"\(looked in .*/hub and asked .*\). Accept its terms on its page, then log in with "
         r"`hf auth login` or set HF_TOKEN; or name a directory"),
        ("tiny/none", r"found 'tiny/none': there is no such directory, and the hub has no such model or hides it "
         r"\(looked in .*/hub and asked .*\). Correct the name; for a private model log in"),
        ({"name": MODEL, "revision": "second"}, r"model.revision should be a branch, tag or commit of 'tiny/model', "
         r"found 'second', which it does not have .* Correct it, or leave it out"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_model_that_the_hub_refuses_is_named_with_the_remedy(asked, tmp_path, command, model, said):
    path = run_yaml(tmp_path / "c.yaml", model=model)
    if command == "sweep":
        data = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({"curves": [{"method": data.pop("method")}], "seeds": [1]} | data))
    code, output = selgen(command, "-c", path, "--out", tmp_path / "out")
    assert code == 2 and re.search(said, output), output
    assert not list((tmp_path / "out").glob("*/record.json"))


@pytest.mark.parametrize("how", ["offline", "unreachable"])
@pytest.mark.parametrize("model", [GATED, {"name": MODEL, "revision": "first"}])
def test_without_a_connection_what_was_tried_and_how_to_download_is_said(asked, monkeypatch, tmp_path, how, model):
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        reason = "HF_HUB_OFFLINE is set"
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between the client's tries
        reason = "http://127.0.0.1:1 cannot be reached"
    name, revision = (model, None) if isinstance(model, str) else model.values()
    code, output = selgen("train", "-c", run_yaml(tmp_path / "c.yaml", model=model), "--out", tmp_path / "out")
    what = repr(name) if revision is None else f"{name!r} at revision {revision!r}"
    assert code == 2
    assert f"model.name is {what}, which is no directory and not, or not whole, in {tmp_path / 'hub'}" in output, output
    assert reason in output
    assert f"`hf download {name}{f' --revision {revision}' if revision else ''}`" in output
    assert "name a directory that holds the model" in output and "hf auth login" in output


def test_a_directory_has_no_revision(revisions, tmp_path):
    path = run_yaml(tmp_path / "c.yaml", model={"name": str(revisions["main"]), "revision": "first"})
    code, output = selgen("train", "-c", path, "--out", tmp_path / "out")
    assert code == 2 and "model.revision should be null for" in output and "Remove it" in output


def test_names_with_and_without_a_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a@b").mkdir()
    assert hub.split("org/m@v1.0") == ("org/m", "v1.0")
    assert hub.split("org/m") == ("org/m", None)
    assert hub.split("a@b") == ("a@b", None), "a directory"
    assert hub.split("/no/such@dir") == ("/no/such@dir", None), "a path"
    assert hub.pinned("org/m", None) == "org/m" and hub.pinned("a@b", "x") == "a@b"
