"""Where runs start: find the weights, build a miniature if need be, and check that the data fit the model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from selgen import launch, plan
from selgen.config import ConfigError
from selgen.core import BASE, Eval, Example, Message, Method, Setting, Split
from selgen.plan import Job, Start, named_weights, streams
from selgen.spec import RunSpec, Shared, canonical, make_judge, make_method, make_setting

MINIATURE = "miniature"
"""The model name that stands for the setting's own miniature."""


def start(spec: RunSpec, progress: Callable[[int, int], None] = lambda done, total: None) -> Start:
    """Find the weights that a run starts from; builds the setting's miniature if it is not in the cache.

    Args:
        progress: Told the steps done and their total while the miniature is trained.

    Raises:
        ConfigError: the setting has no miniature, there is no such model, or the judge cannot be used.
    """
    judge = make_judge(spec.judge)
    if judge is not None:
        try:
            judge.check()
        except ValueError as error:
            raise ConfigError([str(error)]) from error
    # transformers takes seconds to import, and planning does not need it.
    from selgen import hub, intact, models

    _check_revision(spec)
    if spec.model.name == MINIATURE:
        return _miniature(make_setting(spec.setting), progress)
    if "/" not in spec.model.name and not Path(spec.model.name).exists():
        near = get_close_matches(spec.model.name, [p.name for p in Path().iterdir() if p.is_dir()], n=1)
        if near:  # the hub would be asked for a minute
            raise ConfigError([f"model.name is {spec.model.name!r}, which does not exist. Did you mean {near[0]!r}?"])
    try:
        trusted = spec.model.trust_remote_code
        intact.check_model(spec.model.name, trusted)
        path = Path(spec.model.name)
        if not path.is_dir():
            # Its commit from here on: a branch may move while a sweep goes on.
            found = models.fingerprint(hub.pinned(spec.model.name, spec.model.revision), trusted)
            models.load_tokenizer(found, trusted)
            _check_attention(found, spec)
            return Start(found, found, trust_remote_code=trusted)
        is_adapter = models.is_adapter(path)
        if spec.method["name"] != BASE and is_adapter:
            _check_on_top(path, spec)
        # Absolute, since a saved adapter remembers where its base lies.
        name = str(path.resolve())
        _check_attention(name, spec)
        pretrained = models.raw(name) if is_adapter else None
        return Start(name, models.fingerprint(name), pretrained=pretrained, trust_remote_code=trusted)
    except ConfigError:
        raise
    except (hub.ModelNotFound, ValueError) as error:
        raise ConfigError([str(error)]) from error
    except OSError as error:
        # A name with a slash in front is meant as a directory, whatever the hub's client says about it.
        is_path = spec.model.name.startswith(("/", "./", "../"))
        reason = "there is no such directory" if is_path else str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            [
                f"model.name should be {MINIATURE}, a model directory or a hub id, found {spec.model.name!r}: "
                f"{reason}. Correct the name, or download the model first."
            ]
        ) from error


def on_top(start: Start, adapter: Path) -> Start:
    """Where a run starts that comes after another one: from the adapter that this left, trained on `start`."""
    from selgen import models

    return replace(start, path=str(adapter), pretrained=models.raw(str(adapter)))


def check_machine(spec: Shared) -> None:
    """Make sure that this machine can hold the model as it is asked for; elsewhere another one may.

    Raises:
        ConfigError: it cannot.
    """
    if spec.model.quantization is not None:
        from selgen.loading import quantization_problem

        if problem := quantization_problem():
            raise ConfigError([problem])


def jobs(runs: Sequence[RunSpec], progress: Callable[[int, int], None] = lambda done, total: None) -> list[Job]:
    """All that comes before the first run: weights are found or built, texts and methods checked, ids given.

    Args:
        runs: That start from the same model, with those that others start from or act on.
        progress: Told the steps done and their total while a miniature is trained.

    Raises:
        ConfigError: some run cannot be carried out.
    """
    check_launch(runs)
    # What is trained decides whether the model can be started from.
    weights = start(next((run for run in runs if run.method["name"] != BASE), runs[0]), progress)
    check_texts(runs, weights)
    return plan.jobs(runs, weights, check_methods(runs, weights))


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


def _check_revision(spec: RunSpec) -> None:
    name, revision = spec.model.name, spec.model.revision
    if revision is not None and (name == MINIATURE or Path(name).is_dir()):
        raise ConfigError(
            [
                f"model.revision should be null for {name!r}, which is no hub id, found {revision!r}. Remove it: "
                "directories are told apart by their files."
            ]
        )


def _check_attention(name: str, spec: RunSpec) -> None:
    """Make sure that the model has the attention that is asked for.

    Raises:
        ValueError: it has not.
    """
    from selgen import models

    if spec.model.attn_implementation is not None:
        how = spec.model.loading()
        models.empty(name, None, **{key: how[key] for key in ("trust_remote_code", "attn_implementation")})


def _check_on_top(adapter: Path, spec: RunSpec) -> None:
    """Make sure that a new adapter can be trained on top of one."""
    from selgen import models

    if spec.model.quantization is not None:
        raise ConfigError(
            [
                f"model.quantization should be null with the adapter {adapter} as starting model, which is merged into "
                "the weights and would be rounded with them. Merge it into its base model first and save that, or set "
                "model.quantization=null."
            ]
        )
    if spec.lora is None:
        raise ConfigError(
            [
                f"lora should not be null with the adapter {adapter} as starting model: on top of an adapter only an "
                "adapter is trained. Merge it into its base model first, or give lora.r."
            ]
        )
    start = json.loads((adapter / models.ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if spec.lora.use_dora or start.get("use_dora"):
        raise ConfigError(
            [
                f"lora.use_dora should be false with the adapter {adapter} as starting model, and so should that "
                "adapter's: both are saved as one sum, which DoRA's norms do not have. Merge the adapter into its base "
                "model first, or turn DoRA off."
            ]
        )


def _miniature(setting: Setting, progress: Callable[[int, int], None]) -> Start:
    from selgen import miniature, models

    try:
        corpus = setting.miniature()
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    paths = miniature.build(corpus, progress=progress)
    return Start(str(paths.instruct), models.fingerprint(paths.instruct), paths.key, str(paths.pretrained))
