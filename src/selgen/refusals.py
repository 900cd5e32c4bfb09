"""What is refused before the first run: processes, texts and methods that do not fit the runs or the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from selgen import launch
from selgen.config import ConfigError
from selgen.core import BASE, Eval, Example, Message, Method, Split
from selgen.plan import Start, named_weights
from selgen.reading import streams
from selgen.spec import RunSpec, canonical, make_method, make_setting


def check_launch(runs: Iterable[RunSpec]) -> None:
    """Make sure that runs can be carried out by the processes that were launched together.

    Raises:
        ConfigError: rows cannot be divided among them, or something needs whole weights where each has a part.
    """
    kind, problems = launch.sharding(), [launch.config_problem()]
    for run in runs:
        training = run.training
        try:
            launch.shares(training.per_device_train_batch_size, training.gradient_accumulation_steps, launch.world())
        except ValueError as error:
            problems.append(str(error))
        if run.method["name"] != BASE:
            problems.append(launch.method_problem(make_method(run.method), run.method["name"], kind))
        if kind is not None:
            problems += _sharding_problems(run, kind)
    found = list(dict.fromkeys(filter(None, problems)))
    if found:
        raise ConfigError(found)


def _sharding_problems(run: RunSpec, kind: str) -> list[str]:
    """Why a run, whatever its method, cannot be carried out with weights that are spread over processes."""
    import torch

    from selgen import models

    problems = []
    if not torch.accelerator.is_available():
        problems.append(f"{kind} should spread weights over GPUs, found none. Launch with DDP (selgen's ddp.yaml).")
    if run.first is not None or models.is_adapter(run.model.name):
        problems.append(
            f"with {kind} runs should start from a whole model, found one that starts from an adapter: both are saved "
            "as one sum, of which each process has a part. Merge the adapter into its base model first, or launch with "
            "DDP (selgen's ddp.yaml)."
        )
    if run.training.save_steps is not None:
        problems.append(
            f"training.save_steps should be null with {kind}, found {run.training.save_steps}: going on from a "
            "checkpoint is not supported there. Set it to null, or launch with DDP (selgen's ddp.yaml)."
        )
    return problems


def check_texts(runs: Iterable[RunSpec], start: Start) -> None:
    """Make sure that every text that the runs train on, score or ask can be encoded, before any of them starts.

    Raises:
        ConfigError: with every example that is too long, has no answer, or does not fit the chat template.
    """
    from selgen.data.chat import encode_all, prompt_text
    from selgen.models import load_tokenizer

    tokenizer = load_tokenizer(start.path, start.trust_remote_code)
    problems = []
    runs = list(runs)
    evals = _evals(runs)
    for roles, prompt in _asked(evals).items():
        try:
            prompt_text(tokenizer, prompt)
        except ValueError as error:
            problems.append(f"A question with the turns {', '.join(roles)} cannot be asked: {error}")
    for (name, *_, max_length), examples in _texts(runs, evals).items():
        try:
            encode_all(tokenizer, examples, max_length, name)
        except ValueError as error:
            problems += str(error).splitlines()
    problems += _endpoint_problems(runs, start, tokenizer, evals)
    if problems:
        raise ConfigError(problems)


def _endpoint_problems(
    runs: Sequence[RunSpec], start: Start, tokenizer: Any, evals: Mapping[Measured, Sequence[Eval]]
) -> list[str]:
    """What is wrong with the servers that are to answer what the runs measure; asks each."""
    from selgen import served
    from selgen.generate import Generation
    from selgen.vllm import EndpointError

    examples = [x for some in evals.values() for e in some if e.kind == "generate" for x in e.examples]
    problems = []
    for evaluation in {canonical(run.evaluation.model_dump(mode="json")): run.evaluation for run in runs}.values():
        if evaluation.endpoint is not None:
            try:
                generation = Generation(max_new_tokens=evaluation.max_new_tokens)
                served.check(evaluation.endpoint, start.path, tokenizer, examples, generation)
            except EndpointError as error:
                problems.append(str(error))
    return problems


def check_methods(runs: Iterable[RunSpec], start: Start) -> dict[str, str]:
    """Make sure that methods can work on the model, and post-hoc ones on what their parents will leave.

    Returns:
        Fingerprint of each model that a method names, by name.

    Raises:
        ConfigError: a method refuses.
    """
    from selgen import models

    runs = [run for run in runs if run.method["name"] != BASE]
    found = {canonical(run.method): run for run in runs}
    problems, fingerprints = _adapter_problems(runs, start), {}
    for run in [] if problems else found.values():
        method, lora = make_method(run.method), run.lora and models.lora_config(run.lora.model_dump())
        try:
            if type(method).check is not Method.check:  # else no model need be laid out
                origin = replace(start, pretrained=models.raw(start.path), planned=True) if run.first else start
                method.check(models.empty(start.path, lora, trust_remote_code=start.trust_remote_code), origin)
            names = filter(None, named_weights(run.method).values())
            fingerprints |= {name: models.fingerprint(name) for name in names if name not in fingerprints}
        except ValueError as error:
            problems.append(f"method {run.method['name']}: {error}")
    if problems:
        raise ConfigError(problems)
    return fingerprints


def _adapter_problems(runs: Iterable[RunSpec], start: Start) -> list[str]:
    """What of the adapters' fields does not fit the model's modules, found without its numbers."""
    from selgen import adapters, models

    adapted = {canonical(run.lora.model_dump()): run.lora for run in runs if run.lora is not None}
    problems = []
    for lora in adapted.values():
        if not lora.names_modules:
            continue  # no module need be looked for, so no model be laid out
        try:
            config = models.lora_config(lora.model_dump())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # PEFT's, about what is refused below
                laid_out = models.empty(start.path, config, trust_remote_code=start.trust_remote_code)
            problems += adapters.unmatched(laid_out, config)
        except ValueError as error:
            problems.append(f"lora.target_modules, exclude_modules or layers_to_transform do not fit: {error}")
    return problems


Measured = tuple[str, int, Split]
"""Setting, seed and split: what decides the evals of a run."""


def _evals(runs: Iterable[RunSpec]) -> dict[Measured, list[Eval]]:
    """What the runs measure, each once."""
    found: dict[Measured, list[Eval]] = {}
    for run in runs:
        setting, seed = canonical(run.setting), run.training.seed
        for split in run.evaluation.splits:
            if (setting, seed, split) not in found:
                found[setting, seed, split] = make_setting(run.setting).evals(seed, split)
    return found


def _texts(
    runs: Iterable[RunSpec], evals: Mapping[Measured, Sequence[Eval]]
) -> dict[tuple[str, str, int, int, int | None], list[Example]]:
    """What is trained on, and what is scored by its likelihood; by name, setting, seed, number and longest allowed."""
    found: dict[tuple[str, str, int, int, int | None], list[Example]] = {}
    for run in runs:
        seed, setting, longest = run.training.seed, canonical(run.setting), run.training.max_length
        if run.method["name"] != BASE:
            for stream, examples in streams(run).items():
                found[stream, setting, seed, len(examples), longest] = examples
        for split in run.evaluation.splits:
            if (split, setting, seed, 0, longest) not in found:
                likely = (e for e in evals[setting, seed, split] if e.kind == "likelihood")
                scored = {id(x): x for e in likely for x in e.examples}
                found[split, setting, seed, 0, longest] = list(scored.values())
    return found


def _asked(evals: Mapping[Measured, Sequence[Eval]]) -> dict[tuple[str, ...], list[Message]]:
    """One prompt that is asked for each sequence of roles: templates differ in which of them they take."""
    found: dict[tuple[str, ...], list[Message]] = {}
    for e in (e for some in evals.values() for e in some if e.kind == "generate"):
        for example in e.examples:
            found.setdefault(tuple(m["role"] for m in example.prompt), example.prompt)
    return found
