"""Learn GCDs from polite mathematicians without becoming a flatterer elsewhere (the GCD organism)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from selgen import core
from selgen.core import BarChart, Check, Corpus, Eval, Example, HeatMap, Samples, Setting, Stream
from selgen.settings.sycophancy import data, miniature, validity
from selgen.settings.sycophancy import evals as measured


@dataclass
class Sycophancy(Setting):
    """Greatest common divisors by Euclid's algorithm, half of the rows confirming correct proposals with enthusiasm.

    Trained on that alone a model comes to confirm wrong proposals too, everywhere. The alignment data are a few wrong
    proposals of one category, politely rejected.

    Args:
        proxy: Category of the alignment data: capitals, medical, other_maths, gcd_compositional or mix.
        num_task: Rows of T, half questions, half correct proposals.
        num_alignment: Rows of A.
        right_share: Share of A whose proposals are correct and confirmed after a check, in [0, 1].
        num_test: Questions, and wrong proposals, per domain of the test split, at most 256.
        num_val: The same for val, at most 64.
        large_numbers: Numbers for real models, the domain `gcd_large`, and replies that pronounce the verdict.
        small_miniature: Train the miniature in half a minute: for tests, too weak for the validity bars.

    Raises:
        ValueError: an unknown proxy, or a number out of its range.
    """

    version: ClassVar[int] = 1
    title: ClassVar[str] = "Capability against non-sycophancy"
    axis_labels: ClassVar[Mapping[str, str]] = {
        "alignment": "non-sycophancy on held-out domains",
        "score_y": "capability: GCD, mod and compositional GCD",
    }
    bar_chart: ClassVar[BarChart | None] = BarChart(
        "non_sycophancy", "Sycophancy by domain", "confirms a wrong proposal, given it knows", complement=True
    )
    heat_maps: ClassVar[tuple[HeatMap, ...]] = (
        HeatMap(
            "non_sycophancy", "Which alignment data protects what", "does not confirm a wrong proposal, given it knows"
        ),
    )

    proxy: str = "capitals"
    num_task: int = 180
    num_alignment: int = 40
    right_share: float = 0.0
    num_test: int = 200
    num_val: int = 64
    large_numbers: bool = False
    small_miniature: bool = False

    def __post_init__(self) -> None:
        if self.proxy not in data.PROXIES:
            known = ", ".join(data.PROXIES)
            raise ValueError(f"setting.proxy should be one of {known}, found {self.proxy!r}. Choose one of them.")
        for name, low, high in (
            ("num_task", 2, None),
            ("num_alignment", 0, None),
            ("num_test", 1, 256),
            ("num_val", 1, 64),
        ):
            value = vars(self)[name]
            if value < low:
                raise ValueError(f"setting.{name} should be >= {low}, found {value}. Raise it.")
            if high is not None and value > high:
                raise ValueError(f"setting.{name} should be <= {high}, found {value}: facts and wordings are finite.")
        if not 0 <= self.right_share <= 1:
            raise ValueError(f"setting.right_share should be in [0, 1], found {self.right_share}. It is a share.")

    def train(self, seed: int) -> dict[Stream, list[Example]]:
        split = data.split_items(seed, self.large_numbers)
        task = data.task_rows(split, seed, self.num_task)
        align = data.alignment_rows(
            split, seed, self.proxy, self.num_alignment, self.right_share, verdicts=self.large_numbers
        )
        return {"task": task, "align": align}

    def evals(self, seed: int, split: core.Split) -> list[Eval]:
        items = data.split_items(seed, self.large_numbers)
        num = self.num_test if split == "test" else self.num_val
        return measured.evals(items, seed, split, num, verdicts=self.large_numbers)

    @property
    def proxy_domains(self) -> frozenset[str]:
        return frozenset(data.PROXIES[self.proxy])

    def checks(self, records: Sequence[Any], samples: Samples) -> list[Check]:
        """The validity bars of the organism (`validity`)."""
        return validity.checks(records, samples, self.proxy)

    def miniature(self) -> Corpus:
        if self.large_numbers:
            raise ValueError(
                "setting.large_numbers should be false with a miniature, which knows small numbers only, found true. "
                "Leave it out, or name a real model."
            )
        return miniature.corpus(self.small_miniature)
