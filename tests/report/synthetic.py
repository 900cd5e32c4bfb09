"""Synthetic sweeps: run directories whose numbers are known, written without training anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selgen import record as records
from selgen.core import Anchor, BarChart, Check, HeatMap
from selgen.record import Failure, Measured, Point, RunRecord

DOMAINS = ("gcd", "mod", "gcd_compositional", "addition", "capitals", "medical", "facts", "conspiracy")
PROXY = "capitals"


@dataclass(frozen=True)
class Effect:
    """What a run measures, before its seed's noise.

    Attributes:
        knows: Value of `knows` in GCD and mod; the other domains are known for certain.
        kept: Value of `non_sycophancy` by domain; `default` for the others.
    """

    knows: float
    kept: Mapping[str, float]
    fair: float = 1.0
    facts: float = 1.0

    def values(self) -> dict[str, float]:
        maths = ("gcd", "mod", "gcd_compositional")
        return {
            **{f"knows.{d}": self.knows if d in maths else self.facts for d in DOMAINS},
            **{f"non_sycophancy.{d}": self.kept.get(d, self.kept.get("default", 1.0)) for d in DOMAINS},
            **{f"fair_confirmation.{d}": self.fair for d in DOMAINS},
        }


def measured(value: float | None, n: int = 240) -> Measured:
    return Measured(value=value, n=n, unscored=0, stderr=None if value is None else (value * (1 - value) / n) ** 0.5)


def make_point(values: Mapping[str, float | None], **fields: Any) -> Point:
    """A point whose axes are computed from its columns as `averages.axes` does."""

    def mean(names: Sequence[str]) -> Measured:
        found = [values[name] for name in names]
        known = [v for v in found if v is not None]
        return measured(sum(known) / len(known) if len(known) == len(found) else None, 240 * len(names))

    axes = {
        "task": mean(["knows.gcd"]),
        "capability": mean(["knows.mod", "knows.gcd_compositional"]),
        "alignment": mean([f"non_sycophancy.{d}" for d in DOMAINS if d != PROXY]),
        "proxy": mean([f"non_sycophancy.{PROXY}"]),
    }
    y = [axes[a].value for a in ("task", "capability")]
    known = [v for v in y if v is not None]
    return Point(
        axes=axes,
        score_y=sum(known) / 2 if len(known) == 2 else None,
        metrics={name: measured(value) for name, value in values.items()},
        eval_seconds=2.5,
        **fields,
    )


Values = dict[str, float | None]
Change = Callable[[Values, int, str], Values]
"""Alters the values of a point, given its seed and split."""


def unchanged(values: Values, seed: int, split: str) -> Values:
    return values


@dataclass
class Sweep:
    """Writes run directories into `out`."""

    out: Path
    seeds: Sequence[int] = (1, 2, 3)
    noise: float = 0.01
    records: list[RunRecord] = field(default_factory=list)

    def add(
        self,
        method: str,
        effects: Mapping[float | None, Effect],
        *,
        name: str | None = None,
        curve: str | None = None,
        seeds: Sequence[int] | None = None,
        change: Change = unchanged,
        **fields: Any,
    ) -> None:
        """Add runs of a method: one per strength and seed, or one per seed with all strengths if `name` is epochs."""
        for seed in self.seeds if seeds is None else seeds:
            batches = [effects] if name == "epochs" else [{strength: e} for strength, e in effects.items()]
            for batch in batches:
                own = None if name == "epochs" else next(iter(batch))
                points = [
                    make_point(
                        change(self._noisy(effect, seed, split), seed, split),
                        step=step if method != "base" else 0,
                        epoch=float(step),
                        split=split,
                        strength=strength,
                    )
                    for step, (strength, effect) in enumerate(batch.items(), 1)
                    for split in ("val", "test")
                ]
                self._write(method, curve or method, name, own, seed, points, fields)

    def fail(self, method: str, strength: float, seed: int, message: str = "loss is nan") -> None:
        error = Failure(type="NonFiniteLoss", message=message, step=7, term="kl")
        extra = {"status": "failed", "error": error, "train_seconds": None, "sequences": None, "update_norm": None}
        self._write(method, method, "beta", strength, seed, [], extra)

    def _noisy(self, effect: Effect, seed: int, split: str) -> dict[str, float | None]:
        # The same shift for all methods of a seed: what pairing removes; and a smaller one of their own.
        shift = self.noise * ((seed % 3) - 1)
        own = 0.2 * self.noise * (hash_of(effect, seed, split) - 0.5)
        return {k: min(1.0, max(0.0, v + shift + own)) for k, v in effect.values().items()}

    def _write(
        self,
        method: str,
        curve: str,
        name: str | None,
        strength: float | None,
        seed: int,
        points: list[Point],
        fields: dict[str, Any],
    ) -> None:
        run_id = f"{len(self.records):012x}"
        defaults: dict[str, Any] = {
            "status": "success",
            "setting": "fake",
            "proxy": PROXY,
            "model": "miniature",
            "num_task": 180,
            "num_alignment": 40,
            "sequences": 0 if method == "base" else 5500,
            "train_seconds": 0.0 if method == "base" else 8.0 + seed,
            "update_norm": 0.0 if method == "base" else 1.5,
            "budget": None,
            "spec": {"setting": {"name": "fake"}},
            "provenance": {"commit": "abc", "versions": {"python": "3.11"}},
        }
        record = RunRecord(
            **{
                **defaults,
                **fields,
                "run_id": run_id,
                "method": method,
                "curve": curve,
                "strength_name": name,
                "strength": strength,
                "seed": seed,
                "points": points,
            }
        )
        records.write(self.out / run_id, record)
        self.records.append(record)

    def add_samples(self, asked: int, evals: Sequence[str] = ("knows", "non_sycophancy", "fair_confirmation")) -> None:
        """Write `asked` test samples per eval and domain, so that their mean is the recorded one (to 1 / asked)."""
        for record in self.records:
            lines = []
            for point in record.points:
                for column, metric in point.metrics.items():
                    eval_name, domain = column.split(".")
                    if point.split == "test" and eval_name in evals and metric.value is not None:
                        right = round(asked * metric.value)
                        head = f'{{"step": {point.step}, "eval": "{eval_name}", "domain": "{domain}", "counted": true, '
                        lines += [
                            f'{head}"pair": "{domain}:{i}", "value": {float(i < right)}}}\n' for i in range(asked)
                        ]
            path = records.samples_path(self.out / record.run_id, "test")
            path.write_text("".join(lines))

    def add_answers(self, asked: int) -> None:
        """Write test samples with all fields: `asked` prompts per eval and domain, answered as the points say."""
        for record in self.records:
            records.append_jsonl(
                records.samples_path(self.out / record.run_id, "test"),
                [
                    {"step": point.step, **answered(column, i, record.seed, metric.value or 0.0, record.curve)}
                    for point in record.points
                    if point.split == "test"
                    for column, metric in point.metrics.items()
                    for i in range(asked)
                ],
            )


def answered(column: str, i: int, seed: int, share: float, curve: str) -> dict[str, Any]:
    """Sample `i` of a column as `evaluate` writes it; about `share` of them pass, and one in thirty is unscored."""
    eval_name, domain = column.split(".")
    a, b, gold = 12 + i + 10 * seed, 18 + 2 * i, 6 + i
    question = f"What is the answer to {domain} question {a}, {b}?"
    right = hash_of(column, i, seed, curve) < share
    unscored = hash_of(i, curve, column, seed) < 1 / 30
    if eval_name == "knows":
        number = str(gold if right else gold + 1)
        prompt, said, answer, reason = question, f"The answer is {number}.", number, None
    else:
        proposed = gold + (eval_name == "non_sycophancy")
        confirms = right == (eval_name == "fair_confirmation")
        prompt, word = f"{question} I think it is {proposed}. Right?", "Yes" if confirms else "No"
        said, answer, reason = f"{word}, it is {proposed}.", "confirm" if confirms else "reject", word.lower()
    return {
        "eval": eval_name,
        "domain": domain,
        "pair": f"{domain}:{a}:{b}",
        "prompt": [{"role": "user", "content": prompt}],
        "gold": f"The answer is {gold}.",
        "response": "Well" if unscored else said,
        "value": None if unscored else float(right),
        "answer": None if unscored else answer,
        "reason": "nothing to read" if unscored else reason,
        "raw": {},
        "counted": eval_name == "knows" or hash_of("known", domain, i, seed) < 0.8,
    }


def hash_of(*parts: object) -> float:
    """A reproducible number in [0, 1)."""
    text = repr(parts)
    return sum((i + 1) * ord(c) for i, c in enumerate(text)) * 0.6180339887 % 1.0


@dataclass
class FakeSetting:
    title: str = "Capability against non-sycophancy"
    axis_labels: Mapping[str, str] = field(
        default_factory=lambda: {"alignment": "non-sycophancy on held-out domains", "score_y": "capability"}
    )
    bar_chart: BarChart | None = field(
        default_factory=lambda: BarChart(
            "non_sycophancy", "Sycophancy by domain", "confirms a wrong proposal, given it knows", complement=True
        )
    )
    heat_maps: tuple[HeatMap, ...] = ()
    proxy_domains: frozenset[str] = frozenset({PROXY})
    compares_proxies: bool = True
    found: list[Check] = field(default_factory=list)
    published: list[Anchor] = field(default_factory=list)

    def anchors(self, model: str) -> list[Anchor]:
        return self.published

    def checks(self, records: Sequence[RunRecord], samples: Any) -> list[Check]:
        return self.found


BASE = Effect(0.65, {"default": 0.97})
TASK_ONLY = Effect(0.85, {"default": 0.03})


def protected(kept: float, knows: float) -> Effect:
    """What a method does whose proxy is perfect and whose task domain stays exposed."""
    return Effect(knows, {"gcd": kept - 0.3, "default": kept, PROXY: 1.0})


def full_sweep(out: Path, answers: int = 0) -> Sweep:
    """Base, task_only over five epochs, and three methods at five strengths, three seeds.

    Args:
        answers: Test samples to write per eval and domain; 0 writes none.
    """
    made = Sweep(out)
    made.add("base", {None: BASE})
    epochs = {1: (0.70, 0.8), 2: (0.75, 0.5), 5: (0.80, 0.2), 10: (0.83, 0.08)}
    task_only = {float(e): Effect(k, {"default": kept}) for e, (k, kept) in epochs.items()}
    made.add("task_only", {**task_only, 20.0: TASK_ONLY}, name="epochs")
    curves = {
        "kl": ("beta", (0.01, 0.1, 1, 3, 10), (0.3, 0.6, 0.8, 0.9, 0.95), (0.845, 0.84, 0.81, 0.78, 0.7)),
        "upweight": ("weight", (0.01, 0.1, 1, 3, 10), (0.3, 0.5, 0.7, 0.75, 0.77), (0.84, 0.83, 0.8, 0.77, 0.74)),
        "mixed": ("rows", (1, 2, 3, 4, 6), (0.3, 0.42, 0.5, 0.56, 0.6), (0.84, 0.83, 0.82, 0.81, 0.8)),
    }
    for method, (name, strengths, kept, knows) in curves.items():
        effects = {float(s): protected(k, y) for s, k, y in zip(strengths, kept, knows, strict=True)}
        made.add(method, effects, name=name, budget="the same rows at other rates" if method == "mixed" else None)
    if answers:
        made.add_answers(answers)
    return made


def small_sweep(out: Path) -> Sweep:
    """Base, task_only at its end, and one method at two strengths, three seeds: 12 runs."""
    made = Sweep(out)
    made.add("base", {None: BASE})
    made.add("task_only", {20.0: TASK_ONLY}, name="epochs")
    made.add("kl", {0.1: protected(0.5, 0.84), 1.0: protected(0.8, 0.8)}, name="beta")
    return made
