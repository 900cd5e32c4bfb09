"""Your own data: learn a task file, keep to an alignment file, and measure held-out rows of both without a grader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from selgen.core import Eval, Example, Setting, Split, Stream
from selgen.settings.files import data
from selgen.settings.files.evals import domain_evals


@dataclass
class Files(Setting):
    """Rows of your files, a part of each kept for measuring: how probable the known answers are, how near it stays.

    Args:
        task: What to learn: a file, directory or hub id that `selgen.data.files.read_examples` reads.
        alignment: What to keep to; empty only for methods that read task data alone.
        held_out: Name -> source of rows that are measured and never trained on: behaviour that `alignment` does not
            cover. With it the alignment axis is their mean, and held-out rows of `alignment` become the proxy column.
        val_share: Share of each training file's prompts that choose strengths, in (0, 0.5).
        test_share: Share of them that are reported, in (0, 0.5).
        num_read: Most prompts of each domain that are answered in words on the test split, for reading; >= 0.
        skip_bad_rows: Leave bad rows out, counted, instead of refusing the file.

    Raises:
        ValueError: a share or number out of its range.
    """

    version: ClassVar[int] = 1
    title: ClassVar[str] = "Task against alignment, on held-out rows of your data"
    axis_labels: ClassVar[Mapping[str, str]] = {
        "alignment": "alignment: closeness to the starting model on held-out rows",
        "score_y": "task: likelihood of held-out task answers, per token",
    }
    paths: ClassVar[tuple[str, ...]] = ("task", "alignment", "held_out")

    task: str
    alignment: str = ""
    held_out: dict[str, str] = field(default_factory=dict)
    val_share: float = 0.1
    test_share: float = 0.2
    num_read: int = 50
    skip_bad_rows: bool = False

    def __post_init__(self) -> None:
        for name in ("val_share", "test_share"):
            share = getattr(self, name)
            if not 0 < share < 0.5:
                raise ValueError(f"setting.{name} should be in (0, 0.5), found {share}. Keep some rows for measuring.")
        if self.num_read < 0:
            raise ValueError(f"setting.num_read should be >= 0, found {self.num_read}. Use 0 to generate nothing.")
        for name in self.held_out:
            if not name.replace("_", "").isalnum() or name in (data.TASK, data.ALIGNMENT):
                raise ValueError(
                    f"setting.held_out should name its domains in letters, digits and _, apart from {data.TASK} and "
                    f"{data.ALIGNMENT}, found {name!r}. Rename it."
                )

    def _split(self, seed: int) -> data.Divided:
        sources = {data.TASK: self.task, **({data.ALIGNMENT: self.alignment} if self.alignment else {})}
        return data.divide(sources, self.held_out, self.val_share, self.test_share, seed, self.skip_bad_rows)

    def train(self, seed: int) -> dict[Stream, list[Example]]:
        parts = self._split(seed).trained
        return {"task": parts[data.TASK]["train"], "align": parts.get(data.ALIGNMENT, {"train": []})["train"]}

    def evals(self, seed: int, split: Split) -> list[Eval]:
        divided = self._split(seed)
        made = []
        for domain, parts in {**divided.trained, **divided.held_out}.items():
            axis = "task" if domain == data.TASK else "alignment"
            made += domain_evals(domain, axis, parts[split], self.num_read if split == "test" else 0)
        return made

    @property
    def proxy_domains(self) -> frozenset[str]:
        return frozenset({data.ALIGNMENT}) if self.held_out else frozenset()

    def remarks(self) -> list[str]:
        found = []
        if self.alignment and not self.held_out:
            found.append(
                "alignment is measured on held-out rows of the alignment data itself, so it says nothing about "
                "behaviour that these data do not cover; name files of such rows in setting.held_out"
            )
        for source in filter(None, (self.task, self.alignment, *self.held_out.values())):
            skipped = data.load(source, self.skip_bad_rows).skipped
            if skipped:
                found.append(f"{len(skipped)} bad rows of {source} were skipped, the first: {skipped[0]}")
        return found
