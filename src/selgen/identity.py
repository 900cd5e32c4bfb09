"""What a run is called: equal content gives equal names, whatever directory it lies in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from selgen.core import Setting
from selgen.spec import RunSpec, canonical, make_judge

LATER: Mapping[str, Mapping[str, Any]] = {
    "model": {"trust_remote_code": False, "attn_implementation": None, "quantization": None},
    "lora": {
        "exclude_modules": None,
        "layers_to_transform": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
    },
    "training": {"padding_free": False, "compile_blocks": False},
}
"""Fields that are younger than the first runs, and the values at which they change nothing: then they do not count, so
that those runs keep their names."""


def run_id(
    spec: RunSpec,
    *,
    setting: Setting,
    data: str,
    weights: str,
    miniature: str | None,
    named: Mapping[str, str | None] | None = None,
    parent: str | None = None,
    first: str | None = None,
) -> str:
    """Name of a run: the first 12 hex digits of the sha256 of everything that determines its result.

    Args:
        spec: The resolved run; where its model and data lie does not count, what they are does.
        setting: Of the run: its version counts, its `paths` do not.
        data: Fingerprint of the data rows.
        weights: Fingerprint of the starting weights, or hub commit.
        miniature: Key of the miniature's corpus and recipe, or None for other models.
        named: Fields of a post-hoc method that name weights, and what the weights are; None for its own default.
        parent: Name of the run that a post-hoc method acts on.
        first: Name of the run whose adapter it starts from: it stands for what the spec says about that run.
    """
    resolved = spec.model_dump(mode="json")
    # What a revision stands for is the commit, which is in the weights' fingerprint.
    del resolved["model"]["name"], resolved["model"]["revision"], resolved["first"]
    # Greedy answers are the same wherever they are decoded, up to rounding; sampled ones are other draws.
    if resolved["evaluation"].pop("endpoint") is not None and spec.evaluation.temperature > 0:
        resolved["evaluation"]["sampled_by"] = "endpoint"
    for part, fields in LATER.items():
        for field, default in fields.items():
            if resolved[part] and resolved[part][field] == default:
                del resolved[part][field]
    for path in setting.paths:
        del resolved["setting"][path]
    judge = make_judge(spec.judge)
    if judge is None:
        del resolved["judge"]
    else:
        for field in judge.unhashed:
            del resolved["judge"][field]
    content = {
        "spec": resolved,
        "setting_version": setting.version,
        "data": data,
        "weights": weights,
        "miniature": miniature,
    }
    for field in named or {}:
        del resolved["method"][field]
    if parent is not None:
        content |= {"named": dict(named or {}), "parent": parent}
    if first is not None:
        content["first"] = first
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]
