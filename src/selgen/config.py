"""From a YAML file and dotted overrides to plain data, and from wrong data to readable problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import to_jsonable_python

from selgen import registry


class ConfigError(ValueError):
    """Everything that is wrong with a config, found before any model is loaded.

    Attributes:
        problems: One sentence or two each: the field, the value found, what is allowed, the remedy.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.problems,)  # as it comes from another process


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config file.

    Raises:
        ConfigError: there is no such file, it is not YAML, or it is not a mapping.
    """
    if not path.is_file():
        raise ConfigError([f"Config file {path} does not exist. Name an existing YAML file with -c."])
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError([f"Config file {path} is not valid YAML: {error}"]) from error
    if not isinstance(data, dict):
        raise ConfigError([f"Config file {path} should be a mapping of keys, found {type(data).__name__}."])
    return data


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=value` to a copy of a config; values are YAML, list items are named by number (`curves.0.name=x`).

    A new name for a named block (`method=kl`) replaces the whole block, the same name keeps it.

    Raises:
        ConfigError: an assignment has no `=`, or leads through something that is no block.
    """
    result = to_jsonable_python(data)
    problems = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            problems.append(f"Override {assignment!r} should look like training.seed=3. Write KEY=VALUE.")
            continue
        try:
            _assign(result, path.split("."), yaml.safe_load(text))
        except (TypeError, IndexError, ValueError, yaml.YAMLError) as error:
            problems.append(f"Override {assignment!r} cannot be applied: {error}")
    if problems:
        raise ConfigError(problems)
    return result


def _assign(data: Any, path: Sequence[str], value: Any) -> None:
    *parents, last = path
    for i, key in enumerate(parents):
        if isinstance(data, list):
            data = data[int(key)]
            continue
        block = data.setdefault(key, {})
        if isinstance(block, str) or block is None:  # `method: kl` is short for `method: {name: kl}`
            block = data[key] = {"name": block} if block else {}
        if not isinstance(block, (dict, list)):
            raise TypeError(f"{'.'.join(path[: i + 1])} is {block!r} and has no keys.")
        data = block
    if isinstance(data, list):
        data[int(last)] = value
        return
    old = data.get(last)
    if isinstance(old, dict) and isinstance(value, str) and value == old.get("name"):
        return
    data[last] = value


def build(kind: Literal["settings", "methods", "judges"], block: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Make the setting, method or judge that a block names: the block's other keys are the fields of its dataclass.

    Returns:
        The instance, and the block with every field filled in, as JSON values.

    Raises:
        ConfigError: unknown name or key, a value of a wrong type, or whatever the class itself refuses.
    """
    where = kind.removesuffix("s")
    if not isinstance(block.get("name"), str):
        raise ConfigError([f"{where}.name is missing. {registry.suggest('', registry.names(kind))}"])
    try:
        cls = registry.load(kind, block["name"])
    except registry.UnknownName as error:
        raise ConfigError([str(error)]) from error
    given = {key: value for key, value in block.items() if key != "name"}
    fields = _fields_model(cls)
    try:
        values = fields.model_validate(given)
    except ValidationError as error:
        raise ConfigError(explain(error, fields, where)) from error
    try:
        instance = cls(**{key: getattr(values, key) for key in values.model_fields_set})
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    return instance, {"name": block["name"], **to_jsonable_python(dataclasses.asdict(instance))}


@lru_cache
def _fields_model(cls: type[Any]) -> type[BaseModel]:
    """A pydantic model with the init fields of a dataclass, to check names and types before the class is called."""
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.init:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            fields[field.name] = (hints[field.name], ... if required else None)
    return create_model(cls.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def explain(error: ValidationError, model: type[BaseModel], where: str = "") -> list[str]:
    """One readable problem for each of pydantic's errors.

    Args:
        error: What pydantic raised.
        model: Model that was validated: its fields are the suggestions for unknown keys.
        where: Prefix of the field's path, e.g. `method`.
    """
    problems: list[str] = []
    for item in error.errors():
        path = ".".join(str(part) for part in ([where] if where else []) + list(item["loc"]))
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            problems += cause.problems
        elif isinstance(cause, ValueError):
            problems.append(str(cause))
        elif item["type"] == "extra_forbidden":
            known = _keys(model, item["loc"][:-1])
            problems.append(f"Unknown key {path}. {registry.suggest(str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            problems.append(f"{path} is missing. Add it to the config, or give {path}=VALUE on the command line.")
        else:
            allowed = item["msg"].removeprefix("Input should be ")
            problems.append(
                f"{path} should be {allowed}, found {item['input']!r}. "
                f"Correct it in the config, or give {path}=VALUE on the command line."
            )
    return problems


def _keys(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Field names of the model that a pydantic location leads to."""
    for part in loc:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
            model = inner[0]
    return list(model.model_fields)
