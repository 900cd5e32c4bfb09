"""What a sweep is: curves (methods x strengths) x seeds, under budgets kept equal by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from selgen.blocks import Block, Count, ExecutorSpec, Spec, changed_setting, named
from selgen.config import ConfigError, build
from selgen.core import BASE, FIRST, REFERENCE, TASK_ONLY, PostHoc
from selgen.spec import (
    EPOCHS,
    RunSpec,
    Shared,
    adapter_problems,
    canonical,
    checkpoint_problems,
    epoch_problems,
    make_method,
    make_setting,
)

ONE_POINT = "one point"
"""What the budget of a curve says that is drawn at one strength beside curves with more."""


class CurveSpec(Spec):
    """A method and the strengths at which its curve is drawn.

    Attributes:
        method: Name and fixed hyper-parameters.
        name: Of the line in the figure; defaults to the method's name.
        vary: One field of the method and its values, one run each.
        epochs: Instead of `vary`: checkpoints of one run at which to evaluate. The last may differ from
            training.num_train_epochs if `budget` says so: the runs then train for that many epochs.
        proxies: Alignment data that it is drawn with, values of setting.proxy; defaults to the setting's own.
        setting: Other values of the setting's options for its runs, e.g. fewer alignment rows; needs `budget`.
        budget: What differs from the other curves' budget; required if it does. `one point` in it allows one strength
            beside curves with more, for baselines and controls.
    """

    method: Block
    name: str | None = None
    vary: dict[str, list[Any]] | None = None
    epochs: list[Count] | None = None
    proxies: list[str] | None = None
    setting: dict[str, Any] = {}
    budget: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        name = self.method.get("name")
        if self.name is None:
            self.name = f"{name} over epochs" if self.epochs and not self._draws_epochs() else name
        problems = []
        if self.vary and self.epochs:
            problems.append("give vary or epochs, not both; make it two curves.")
        if self.vary is not None and (len(self.vary) != 1 or not all(self.vary.values())):
            problems.append(f"vary should name one field with at least one value, found {self.vary}.")
        if self.proxies == []:
            problems.append("proxies should name at least one, found []. Leave it out for the setting's own.")
        if self.proxies and len(set(self.proxies)) < len(self.proxies):
            problems.append(f"proxies should differ from each other, found {self.proxies}. Remove the repeated ones.")
        if self.setting and self.budget is None:
            problems.append(
                f"setting should be left out without a budget, found {self.setting}. Say in budget what it changes, "
                "e.g. budget: a tenth of the alignment rows."
            )
        if self.name == FIRST:
            problems.append("that name is kept for runs from which others start. Give it another name.")
        if name == BASE:
            problems.append("the method base is added to every sweep by itself. Remove this curve.")
        if not problems:
            problems = self._method_problems()
        if problems:
            raise ConfigError(f"Curve {self.name!r}: {problem}" for problem in problems)
        return self

    def _draws_epochs(self) -> bool:
        try:
            return build("methods", self.method)[0].strength == EPOCHS
        except ConfigError:  # reported by _method_problems
            return True

    def _method_problems(self) -> list[str]:
        problems = []
        field = next(iter(self.vary)) if self.vary else None
        if field in self.method:
            problems.append(f"{field} is fixed in method and varied in vary. Remove one of them.")
        seen: list[dict[str, Any]] = []
        for block in self.blocks():
            try:
                method, resolved = build("methods", block)
            except ConfigError as error:
                problems += error.problems
                continue
            if resolved in seen:
                problems.append(
                    f"vary.{field} should hold each value once, found {block[str(field)]!r} again. Remove it."
                )
            seen.append(resolved)
            if field and not isinstance(resolved[field], int | float):
                problems.append(f"vary.{field} should hold numbers, found {resolved[field]!r}. Draw separate curves.")
            if method.align_rows_per_step is not None and self.budget is None:
                problems.append(
                    f"method {block['name']} reads {method.align_rows_per_step} alignment rows per step, unlike the "
                    "other curves. Say so in budget, e.g. budget: the same alignment rows at other rates."
                )
            if method.fits and self.budget is None:
                problems.append(
                    f"method {block['name']} trains on the alignment set before the task, unlike the other curves. Say "
                    "so in budget, e.g. budget: first as many passes over the alignment set."
                )
        return list(dict.fromkeys(problems))

    def blocks(self) -> list[dict[str, Any]]:
        """The method block of every run of the curve."""
        if not self.vary:
            return [self.method]
        [(field, values)] = self.vary.items()
        return [{**self.method, field: value} for value in values]

    @property
    def num_strengths(self) -> int | None:
        """Points that the curve has for each seed; None for a method without a strength, or for one training run."""
        if self.epochs:
            return len(self.epochs)
        if self.vary:
            return len(self.blocks())
        return None if make_method(self.method).strength in (None, EPOCHS) else 1

    @property
    def is_declared_point(self) -> bool:
        """Whether it is one point and says so, which gives it fewer tries than the others."""
        return self.num_strengths == 1 and self.budget is not None and ONE_POINT in self.budget


def reference_problems(reference: Sequence[float]) -> list[str]:
    """What is wrong with the reference point of a sweep's hypervolumes."""
    if len(reference) == 2 and all(math.isfinite(x) and x < 1 for x in reference):
        return []
    return [
        f"reference should be two numbers below 1, the alignment and the score_y from which areas are measured, found "
        f"{list(reference)}. Leave it out for {list(REFERENCE)}."
    ]


class SweepSpec(Shared):
    """Methods x strengths x seeds under equal budgets: data, steps, schedule and seeds are shared by construction.

    Attributes:
        reference: (alignment, score_y) from which the report measures the area under each front, each below 1. Choose
            it before there are results. It changes no run.
        executor: Where the runs are carried out. It changes no run either, and may differ when a sweep goes on.
    """

    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[1, 2, 3], min_length=1)
    curves: list[CurveSpec] = Field(min_length=1)
    reference: list[float] = list(REFERENCE)
    executor: Annotated[ExecutorSpec, BeforeValidator(named)] = ExecutorSpec()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if "seed" in self.training.model_fields_set:
            seed = self.training.seed
            problems.append(f"training.seed should not be set in a sweep, found {seed}. Remove it, and edit seeds.")
        if len(set(self.seeds)) < len(self.seeds):
            problems.append(f"seeds should differ from each other, found {self.seeds}. Remove the repeated ones.")
        names = [curve.name for curve in self.curves]
        for name in sorted({str(n) for n in names if names.count(n) > 1}):
            problems.append(f"Curve name {name!r} is used more than once. Give each curve its own name.")
        tried = [curve for curve in self.curves if curve.num_strengths is not None and not curve.is_declared_point]
        counts = {str(curve.name): curve.num_strengths for curve in tried}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            problems.append(
                f"Every method with a strength should have the same number of strengths, found {found}. "
                "Add or remove values in vary or epochs, so that no method gets more tries than another, or say "
                f"{ONE_POINT!r} in the budget of a curve that is one."
            )
        problems += reference_problems(self.reference)
        settings = [self._settings(curve, problems) for curve in self.curves]
        # A post-hoc run's parent has the same data and trains for as long as the sweep says.
        last = self.training.num_train_epochs
        parents: dict[str, set[int]] = {}  # setting -> epochs whose adapters are kept
        for curve, blocks in zip(self.curves, settings, strict=True):
            if curve.method["name"] == TASK_ONLY and (not curve.epochs or curve.epochs[-1] == last):
                for block in blocks.values():
                    parents.setdefault(canonical(block), {last}).update(curve.epochs or [])
        for curve, blocks in zip(self.curves, settings, strict=True):
            problems += epoch_problems(curve.epochs, self.training, f"Curve {curve.name!r}: epochs", curve.budget)
            name, method = curve.method["name"], make_method(curve.blocks()[0])
            found = adapter_problems(method, name, self.lora, curve.epochs)
            orphans = [proxy for proxy, block in blocks.items() if canonical(block) not in parents]
            if isinstance(method, PostHoc) and orphans:
                missing = self._no_parent(orphans, curve.setting)
                found.append(f"method {name} acts on the runs of {TASK_ONLY}, {missing}")
            elif isinstance(method, PostHoc) and blocks:
                kept = set.intersection(*(parents[canonical(block)] for block in blocks.values()))
                found += self._checkpoint_problems(curve, kept)
            problems += [f"Curve {curve.name!r}: {problem}" for problem in found]
        if problems:
            raise ConfigError(problems)
        return self

    def _checkpoint_problems(self, curve: CurveSpec, kept: set[int]) -> list[str]:
        """What is wrong with the checkpoints of `TASK_ONLY` on which a post-hoc curve acts, given those kept."""
        problems = []
        for block in curve.blocks():
            method = make_method(block)
            beyond = checkpoint_problems(method, block["name"], self.training)
            epoch = method.parent_epoch if isinstance(method, PostHoc) else None
            if not beyond and epoch is not None and epoch not in kept:
                beyond = [
                    f"method {block['name']} acts on {TASK_ONLY} after epoch {epoch}, whose adapter is not kept: "
                    f"{TASK_ONLY} keeps those after {', '.join(map(str, sorted(kept)))}. Add {epoch} to the epochs of "
                    f"the curve of {TASK_ONLY}, or choose among them."
                ]
            problems += beyond
        return problems

    def _no_parent(self, proxies: list[str | None], options: dict[str, Any]) -> str:
        """What is missing for post-hoc runs with these alignment data and options, and the remedy."""
        own, named = proxies == [self.setting.get("proxy")], ", ".join(map(str, proxies))
        if all(curve.method["name"] != TASK_ONLY for curve in self.curves):
            example = f"method: {TASK_ONLY}" if own else f"method: {TASK_ONLY}, proxies: [{named}]"
            return f"of which there is no curve. Add one, e.g. {{{example}}} (with --method, name both)."
        parts = [*([] if proxies == [None] else [f"proxy {named}"]), *([f"setting {options}"] if options else [])]
        which = f" with {' and '.join(parts)}" if parts else ""
        return (
            f"of which there is no curve{which} that ends at training.num_train_epochs "
            f"({self.training.num_train_epochs}). Correct the proxies, setting or epochs of {TASK_ONLY}, or add a "
            "curve."
        )

    def _setting(self, proxy: str | None) -> dict[str, Any]:
        """The setting with that alignment data; None: its own."""
        return self.setting if proxy is None else build("settings", {**self.setting, "proxy": proxy})[1]

    def _proxies(self, curve: CurveSpec) -> list[str | None]:
        own = self.setting.get("proxy")
        return [own] if curve.proxies is None else [*curve.proxies]

    def _settings(self, curve: CurveSpec, problems: list[str]) -> dict[str | None, dict[str, Any]]:
        """The setting of a curve's runs, by alignment data; what is wrong with one is added to the problems."""
        where = f"Curve {curve.name!r}"
        if curve.proxies is not None and "proxy" not in self.setting:
            problems.append(
                f"{where}: proxies should be left out with setting {self.setting['name']}, which has no field proxy, "
                f"found {curve.proxies}. Remove proxies."
            )
            return {}
        if "proxy" in curve.setting:
            proxy = curve.setting["proxy"]
            problems.append(f"{where}: setting.proxy should be given in proxies, found {proxy!r}. Write it there.")
            return {}
        found = {}
        for proxy in self._proxies(curve):
            try:
                found[proxy] = changed_setting(self._setting(proxy), curve.setting, where)
                if self.first is not None:
                    changed_setting(found[proxy], self.first.setting, f"{where}: first")
            except ConfigError as error:
                problems += [p if p.startswith(where) else f"{where}: {p}" for p in error.problems]
        return found

    def expand(self) -> list[RunSpec]:
        """All runs, for each seed: those that others start from, the starting model once per alignment data, curves."""
        used = list(dict.fromkeys(proxy for curve in self.curves for proxy in self._proxies(curve)))
        settings = {proxy: self._setting(proxy) for proxy in used}
        own = [self._settings(curve, []) for curve in self.curves]
        blocks = [*settings.values(), *(block for found in own for block in found.values())]
        made = [make_setting(block) for block in blocks]
        domains = {setting.proxy_domains for setting in made if setting.compares_proxies}
        several = bool(domains) and (len(used) > 1 or len(domains) > 1)
        runs = []
        for seed in self.seeds:
            shared = {
                "model": self.model,
                "lora": self.lora,
                "evaluation": self.evaluation,
                "judge": self.judge,
                "allow_large_alignment": self.allow_large_alignment,
                "first": self.first,
                "covered": sorted(frozenset().union(*domains)) if several else [],
            }
            training = self.training.model_copy(update={"seed": seed})
            found = [
                RunSpec(**shared, setting=block, training=training, method={"name": BASE})
                for block in settings.values()
            ]
            for curve, by_proxy in zip(self.curves, own, strict=True):
                varied = next(iter(curve.vary)) if curve.vary else None
                epochs = curve.epochs[-1] if curve.epochs else training.num_train_epochs
                found += [
                    RunSpec(
                        **shared,
                        setting=setting,
                        training=training.model_copy(update={"num_train_epochs": epochs}),
                        method=block,
                        epochs=curve.epochs,
                        curve=curve.name,
                        strength_name=varied,
                        budget=curve.budget,
                    )
                    for setting in by_proxy.values()
                    for block in curve.blocks()
                ]
            firsts = [first for run in found if (first := run.first_run()) is not None]
            runs += [*{canonical(first.model_dump(mode="json")): first for first in firsts}.values(), *found]
        return runs
