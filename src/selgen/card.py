"""What is saved beside the weights: a model card for people, and the fingerprint of the base for us."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from selgen import hub, models, reading
from selgen.data.files import fingerprint
from selgen.intact import ORIGIN
from selgen.plan import Job
from selgen.record import Point

NOT_MEASURED = "not measured"


def write(directory: Path, job: Job, points: Sequence[Point]) -> None:
    """Write `README.md`, and for an adapter the fingerprint of the base weights that it belongs to."""
    (directory / "README.md").write_text(_card(job, points), encoding="utf-8")
    if job.spec.lora:
        origin = {"base_fingerprint": _base_fingerprint(job), "run_id": job.run_id}
        (directory / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def _base_fingerprint(job: Job) -> str:
    """Of the raw base: an adapter that started from another adapter is saved as their sum."""
    base = models.raw(job.start.path)
    return job.start.fingerprint if base == job.start.path else models.fingerprint(base, job.start.trust_remote_code)


def _card(job: Job, points: Sequence[Point]) -> str:
    spec = job.spec
    hyper = {key: value for key, value in spec.method.items() if key != "name"}
    head: dict[str, Any] = {"library_name": "peft" if spec.lora else "transformers"}
    head["base_model"] = hub.split(job.start.path)[0]
    head["tags"] = ["selgen", spec.method["name"]]
    sets = reading.load_sets(spec.setting, spec.training.seed)
    rows = [f"| {name} | {len(rows)} | `{fingerprint(rows)}` |" for name, rows in sets.items()]
    spec_yaml = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
            f"# {spec.setting['name']}, {spec.method['name']}\n",
            f"Fine-tuned by selgen (selective generalization) from `{job.start.path}` "
            f"(fingerprint `{job.start.fingerprint}`).\n",
            f"- method: {spec.method['name']} {json.dumps(hyper)}",
            f"- strength: {spec.strength_name or 'none'} {'' if spec.strength is None else f'{spec.strength:g}'}",
            f"- seed: {spec.training.seed}",
            *(f"- epochs: {p.epoch:g} of {spec.training.num_train_epochs}" for p in points[-1:] if p.epoch is not None),
            f"- run: {job.run_id}"
            + (f", from the adapter of run {job.parent}" if job.parent else "")
            + (f", on top of the adapter of run {job.first}" if job.first else "")
            + "\n",
            "## Data\n",
            "| set | rows | sha256 of the rows |\n|---|---|---|",
            *rows,
            "\n## Measured on held-out data\n",
            *_metrics(points),
            "\n## Again\n",
            "Save the block below as `run.yaml`, then `selgen train -c run.yaml --out DIR`.\n",
            f"```yaml\n{spec_yaml}```\n",
        ]
    )


def _metrics(points: Sequence[Point]) -> list[str]:
    """A table of the last step's points."""
    last = [p for p in points if p.order == max(q.order for q in points)]
    if not last:
        return ["Nothing was measured."]
    axes = [name for p in last for name, m in p.axes.items() if m.n]
    names = list(dict.fromkeys([*axes, *(name for p in last for name in p.metrics)]))
    lines = [f"| | {' | '.join(p.split for p in last)} |", f"|---|{'---|' * len(last)}"]
    for name in names:
        values = [p.axes.get(name) or p.metrics.get(name) for p in last]
        shown = [NOT_MEASURED if m is None or m.value is None else f"{m.value:.4f} (n {m.n})" for m in values]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines
