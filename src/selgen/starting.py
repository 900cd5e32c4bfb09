"""Where runs start: find the weights, and build a miniature if need be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from selgen import plan, refusals
from selgen.config import ConfigError
from selgen.core import BASE, Setting
from selgen.plan import Job, Start
from selgen.spec import RunSpec, Shared, make_judge, make_setting

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
    refusals.check_launch(runs)
    # What is trained decides whether the model can be started from.
    weights = start(next((run for run in runs if run.method["name"] != BASE), runs[0]), progress)
    refusals.check_texts(runs, weights)
    return plan.jobs(runs, weights, refusals.check_methods(runs, weights))


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
