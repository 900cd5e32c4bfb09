"""Where runs start: find the weights, build a miniature if need be, and check that the data fit the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from selgen.config import ConfigError
from selgen.core import BASE, Setting
from selgen.plan import Start, streams
from selgen.spec import RunSpec, make_setting

MINIATURE = "miniature"
"""The model name that stands for the setting's own miniature."""


def start(spec: RunSpec, progress: Callable[[int, int], None] = lambda done, total: None) -> Start:
    """Find the weights that a run starts from; builds the setting's miniature if it is not in the cache.

    Args:
        progress: Told the steps done and their total while the miniature is trained.

    Raises:
        ConfigError: the setting has no miniature, or there is no such model.
    """
    # transformers takes seconds to import, and planning does not need it.
    from selgen import intact, models

    if spec.model.name == MINIATURE:
        return _miniature(make_setting(spec.setting), progress)
    try:
        intact.check_model(spec.model.name)
        path = Path(spec.model.name)
        # Absolute, since a saved adapter remembers where its base lies.
        name = str(path.resolve()) if path.is_dir() else spec.model.name
        return Start(name, models.fingerprint(name))
    except intact.ModelError as error:
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


def check_texts(runs: Iterable[RunSpec], start: Start) -> None:
    """Make sure that every training example of the runs can be encoded, before any of them starts.

    Raises:
        ConfigError: with every example that is too long, has no answer, or does not fit the chat template.
    """
    from selgen.data.chat import encode_all
    from selgen.models import load_tokenizer

    tokenizer = load_tokenizer(start.path)
    problems = []
    seen = set()
    for run in runs:
        if run.method["name"] == BASE:
            continue
        for stream, examples in streams(run).items():
            key = (stream, run.training.seed, len(examples))
            if key not in seen:
                seen.add(key)
                try:
                    encode_all(tokenizer, examples, run.training.max_length, stream)
                except ValueError as error:
                    problems += str(error).splitlines()
    if problems:
        raise ConfigError(problems)


def _miniature(setting: Setting, progress: Callable[[int, int], None]) -> Start:
    from selgen import miniature, models

    try:
        corpus = setting.miniature()
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    paths = miniature.build(corpus, progress=progress)
    return Start(str(paths.instruct), models.fingerprint(paths.instruct), paths.key)
