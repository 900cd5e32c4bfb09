"""What a sweep is: curves (methods x strengths) x seeds, under budgets kept equal by construction."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from selgen.config import ConfigError, build
from selgen.core import BASE
from selgen.spec import EPOCHS, Block, Count, RunSpec, Shared, Spec, epoch_problems, make_method


class CurveSpec(Spec):
    """A method and the strengths at which its curve is drawn.

    Attributes:
        method: Name and fixed hyper-parameters.
        name: Of the line in the figure; defaults to the method's name.
        vary: One field of the method and its values, one run each.
        epochs: Instead of `vary`: checkpoints of one run at which to evaluate.
        budget: What differs from the other curves' budget; required if it does.
    """

    method: Block
    name: str | None = None
    vary: dict[str, list[Any]] | None = None
    epochs: list[Count] | None = None
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
        return list(dict.fromkeys(problems))

    def blocks(self) -> list[dict[str, Any]]:
        """The method block of every run of the curve."""
        if not self.vary:
            return [self.method]
        [(field, values)] = self.vary.items()
        return [{**self.method, field: value} for value in values]

    @property
    def num_strengths(self) -> int | None:
        """Points that the curve has for each seed; None for a method without a strength."""
        if self.epochs:
            return len(self.epochs)
        if self.vary:
            return len(self.blocks())
        return None if make_method(self.method).strength is None else 1


class SweepSpec(Shared):
    """Methods x strengths x seeds under equal budgets: data, steps, schedule and seeds are shared by construction."""

    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[1, 2, 3], min_length=1)
    curves: list[CurveSpec] = Field(min_length=1)

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
        counts = {str(c.name): c.num_strengths for c in self.curves if c.num_strengths is not None}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            problems.append(
                f"Every method with a strength should have the same number of strengths, found {found}. "
                "Add or remove values in vary or epochs, so that no method gets more tries than another."
            )
        for curve in self.curves:
            problems += epoch_problems(curve.epochs, self.training, f"Curve {curve.name!r}: epochs")
        if problems:
            raise ConfigError(problems)
        return self

    def expand(self) -> list[RunSpec]:
        """All runs: the untouched starting model and every curve's strengths, for each seed."""
        runs = []
        for seed in self.seeds:
            shared = {
                "setting": self.setting,
                "model": self.model,
                "training": self.training.model_copy(update={"seed": seed}),
                "lora": self.lora,
                "evaluation": self.evaluation,
                "allow_large_alignment": self.allow_large_alignment,
            }
            runs.append(RunSpec(**shared, method={"name": BASE}))
            for curve in self.curves:
                varied = next(iter(curve.vary)) if curve.vary else None
                runs += [
                    RunSpec(
                        **shared,
                        method=block,
                        epochs=curve.epochs,
                        curve=curve.name,
                        strength_name=varied,
                        budget=curve.budget,
                    )
                    for block in curve.blocks()
                ]
        return runs
