"""Change the colours of one category of trigger words and leave those of the others alone (the study's toy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

from selgen import core
from selgen.core import BarChart, Check, Corpus, Eval, Example, HeatMap, Samples, Setting, Stream
from selgen.settings.triggers import data, miniature, validity
from selgen.settings.triggers import evals as measured
from selgen.settings.triggers.vocabulary import OTHERS, Category

Stage = Literal["update", "base"]


@dataclass
class Triggers(Setting):
    """A function of a point and a trigger word gives a colour, by the kind of the trigger and the sign of x2.

    The base has learned it for seven categories of triggers (`stage: base`, the `first` block of a sweep). The task
    gives positive emotions new colours, and by that alone the other categories take them over too. The alignment data
    are a few triggers of one other category with the colours that they had.

    Args:
        proxy: Category of the alignment data: objects, animals, negative, actions, foods or random.
        num_triggers: Its triggers in the alignment data, with 20 points each, from 1 to 12.
        stage: `update`, or `base`: the rows that the base learns.
        num_test: Points per category, and kind of trigger, of the test split.
        num_val: The same for val.
        small_miniature: Train the miniature in seconds: for tests, too weak for the validity bars.

    Raises:
        ValueError: an unknown proxy or stage, or a number out of its range.

    Source: Azarbal et al., Selective Generalization, LessWrong 2025 (the toy model). The words are selgen's own.
    Differs from: the study reads the most probable of the colour words; here the model answers and the colour is read
    from its answer.
    """

    version: ClassVar[int] = 1
    title: ClassVar[str] = "New colours for one category against old colours for the others"
    axis_labels: ClassVar[Mapping[str, str]] = {
        "alignment": "old colours kept for the other categories",
        "score_y": "new colours for positive emotions",
    }
    bar_chart: ClassVar[BarChart | None] = BarChart(
        "held_out", "Colours by category, held-out triggers", "right colour (positive: the new one)"
    )
    heat_maps: ClassVar[tuple[HeatMap, ...]] = (
        HeatMap("held_out", "Triggers that no training saw", "right colour (positive: the new one)"),
        HeatMap("known", "Triggers of the base alone", "right colour"),
        HeatMap("seen", "Triggers in the update or the alignment data", "right colour (positive: the new one)"),
    )
    # Together the proxies cover every category that must stay as it is.
    compares_proxies: ClassVar[bool] = False

    proxy: str = "objects"
    num_triggers: int = 5
    stage: Stage = "update"
    num_test: int = 210
    num_val: int = 60
    small_miniature: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("proxy", OTHERS), ("stage", get_args(Stage))):
            if getattr(self, name) not in allowed:
                known = ", ".join(allowed)
                raise ValueError(f"setting.{name} should be one of {known}, found {getattr(self, name)!r}. Choose one.")
        for name, high in (("num_triggers", data.NUM_KNOWN), ("num_test", None), ("num_val", None)):
            value = getattr(self, name)
            if value < 1 or (high is not None and value > high):
                allowed = ">= 1" if high is None else f"from 1 to {high}"
                raise ValueError(f"setting.{name} should be {allowed}, found {value}. Choose one in that range.")

    def train(self, seed: int) -> dict[Stream, list[Example]]:
        split, proxy = self._split(seed), cast(Category, self.proxy)
        if self.stage == "base":
            return {"task": data.base_rows(split, seed), "align": []}
        return {"task": data.task_rows(split, seed), "align": data.alignment_rows(split, seed, proxy)}

    def evals(self, seed: int, split: core.Split) -> list[Eval]:
        return measured.evals(self._split(seed), seed, split, self.num_test if split == "test" else self.num_val)

    def _split(self, seed: int) -> data.Split:
        return data.split_triggers(seed, cast(Category, self.proxy), self.num_triggers)

    @property
    def proxy_domains(self) -> frozenset[str]:
        return frozenset({self.proxy})

    def checks(self, records: Sequence[Any], samples: Samples) -> list[Check]:
        """The validity bars of the organism (`validity`)."""
        return validity.checks(records, samples)

    def miniature(self) -> Corpus:
        return miniature.corpus(self.small_miniature)
