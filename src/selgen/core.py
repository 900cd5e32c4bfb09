"""The nouns of selgen, and what a method, a setting and a scorer must provide.

Legend for tensor shapes: B rows, T positions, n selected (completion) positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

Stream = Literal["task", "align", "rejected"]
Kept = Literal["hidden", "layers", "logprobs"]
Unit = Literal["task_tokens", "align_tokens", "all_tokens", "align_positions", "pairs", "one"]
Axis = Literal["task", "capability", "alignment"]
Split = Literal["val", "test"]


class Message(TypedDict):
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation and the answer to learn or to judge.

    Attributes:
        messages: Chat turns; the last one is the assistant's and is the completion (the gold answer).
        rejected: An undesired last answer to the same prompt, for preference methods; None if there is none.
        meta: What scorers and reports need besides text: `domain`, `form`, `pair`, `answer`, ... JSON values only.
        learn: `last` trains on the last assistant answer only, `all` on every assistant turn.
    """

    messages: Sequence[Message]
    rejected: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    learn: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            found = [m["role"] for m in self.messages]
            raise ValueError(
                f"example.messages should end with an assistant turn, found roles {found}. Append the answer to learn."
            )

    @property
    def prompt(self) -> list[Message]:
        """All turns before the completion."""
        return list(self.messages[:-1])

    @property
    def completion(self) -> str:
        return self.messages[-1]["content"]

    def with_completion(self, text: str) -> Example:
        """The same prompt answered with `text`."""
        return replace(self, messages=(*self.prompt, Message(role="assistant", content=text)))


def ask(user: str, answer: str, /, rejected: str | None = None, **meta: Any) -> Example:
    """A one-turn example: what the user says, what the assistant should answer."""
    turns = (Message(role="user", content=user), Message(role="assistant", content=answer))
    return Example(turns, rejected=rejected, meta=meta)


@dataclass(frozen=True)
class Tokens:
    """A right-padded batch of token rows, padded to its longest row.

    Attributes:
        input_ids: [B, T] int64.
        attention_mask: [B, T] int64, 1 on real tokens.
        labels: [B, T] int64, the token itself on assistant answers, -100 elsewhere (prompt, template, padding).
        ids: [B] int64, the stable index of each row in its set: the key into reference caches.
        padding_free: The model reads the real tokens alone, as one row whose positions begin anew with each of these.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    ids: Tensor
    padding_free: bool = False

    def to(self, device: Any, non_blocking: bool = False) -> Tokens:
        parts = (self.input_ids, self.attention_mask, self.labels, self.ids)
        return Tokens(*(part.to(device, non_blocking=non_blocking) for part in parts), padding_free=self.padding_free)

    @property
    def num_rows(self) -> int:
        return self.input_ids.shape[0]

    @property
    def predicts_BT(self) -> Tensor:
        """[B, T] bool: positions whose *next* token is a label, that is where the model is scored."""
        mask = self.labels.ne(-100).roll(-1, dims=1)
        mask[:, -1:] = False
        return mask

    @property
    def targets_n(self) -> Tensor:
        """[n] int64: the tokens to predict, in the order in which `predicts_BT` selects positions."""
        shifted = self.labels[:, 1:]
        return shifted[shifted.ne(-100)]

    @property
    def num_targets(self) -> int:
        return int(self.labels[:, 1:].ne(-100).sum())


Batch = Mapping[Stream, Tokens]
"""One micro-batch: a `Tokens` for every stream that the method declares; any stream may have 0 rows."""


@dataclass(frozen=True)
class Term:
    """One loss of a method, not yet normalised.

    Attributes:
        total: Scalar with gradient, float32: the SUM over its items.
        unit: What the trainer divides `total` by, counted over the whole optimizer step (all micro-batches and ranks).
        weight: Dimensionless coefficient.
    """

    total: Tensor
    unit: Unit
    weight: float = 1.0


class Reference(Protocol):
    """The frozen starting model, always without gradient."""

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, V] logits of last hidden states [n, D], final soft-cap included."""
        ...

    def precompute(self, stream: Stream, what: Kept = "hidden") -> None:
        """Cache what is constant over training for a whole stream; call it in `Method.prepare`."""
        ...

    def hidden(self, tokens: Tokens) -> Tensor:
        """[n, D] last hidden states (after the final norm) at the positions that predict completion tokens."""
        ...

    def layers(self, tokens: Tokens) -> Sequence[Tensor]:
        """Every block's output, first to last, before the final norm: each [n, D] over the n real tokens."""
        ...

    def logprobs(self, tokens: Tokens) -> Tensor:
        """[B] log-probability of each row's completion, summed over its tokens, in nats (float32)."""
        ...


@dataclass(frozen=True)
class Context:
    """What `Method.prepare` may look at before step 0.

    Attributes:
        step: Optimizer steps taken so far whenever it is called, those before an interruption included.
    """

    model: Any
    tokenizer: Any
    args: Any
    sets: Mapping[Stream, Sequence[Example]]
    reference: Reference
    step: Callable[[], int]


Grads = Mapping[str, "Tensor"]
"""One gradient per trainable parameter, by parameter name."""


class Method(ABC):
    """A way to learn T while A keeps the rest in place. A dataclass: its fields ARE the hyper-parameters.

    Class attributes:
        streams: Streams that `losses` reads. A stream that is not declared is not in the batch; an instance may set
            its own, where a field decides.
        fits: Streams that are learned first, each by an adapter of its own (named like the stream): the same training
            on the stream's cross-entropy. That adapter is then frozen and stays active beside the one that is trained.
        separate_gradients: True makes the trainer keep one gradient per term and call `combine`.
        acts_on_weights: True if it reads or freezes weights in any other way than by calling the model: it needs all of
            each weight, and refuses where they are spread over processes.
        strength: Name of the field that a sweep varies and a curve is drawn over, or None. `epochs` stands for
            `training.num_train_epochs`. An instance may set its own, where one of two fields is given.
        neutral: (value of `strength`, name of the method that it then equals bit for bit), or None.
        align_rows_per_step: Alignment rows that join each optimizer step. None keeps the sets' ratio, so that each
            set is seen once per epoch.
        align_share: Share of the alignment rows that it reads, drawn by the seed, in (0, 1]. A method that shows the
            model two sequences for each row reads half of them, so that all methods see as many sequences.
        lr_scale: Factor on `training.learning_rate`, > 0.
        control: Whether it knows nothing of what should stay: a baseline, or a control with wrong or random knowledge.
            It is drawn as any method, and left out of claims about methods.
    """

    streams: tuple[Stream, ...] = ("task", "align")
    fits: ClassVar[tuple[Stream, ...]] = ()
    separate_gradients: ClassVar[bool] = False
    acts_on_weights: ClassVar[bool] = False
    strength: str | None = None
    neutral: tuple[float, str] | None = None
    align_rows_per_step: float | None = None
    align_share: ClassVar[float] = 1.0
    lr_scale: float = 1.0
    control: bool = False

    def check(self, model: Any, start: Origin) -> None:  # noqa: B027  # optional
        """Called before anything is trained, a post-hoc method's parent included.

        Args:
            model: The starting model, with an adapter if one is trained, without numbers (on torch's meta device):
                names and shapes.
            start: Where its weights come from.

        Raises:
            ValueError: the method cannot work on such a model; the message ends with the remedy.
        """

    def prepare(self, ctx: Context) -> None:  # noqa: B027  # optional
        """Called once before step 0."""

    @abstractmethod
    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        """The named terms of one micro-batch. Reads only `self.streams`; a stream without rows gives a zero total."""

    def combine(self, grads: Mapping[str, Grads]) -> Grads:
        """One gradient from one per term (already weighted and normalised), once per optimizer step."""
        raise TypeError(f"{type(self).__name__} sets separate_gradients and must define combine()")

    def finish(self, model: Any) -> None:  # noqa: B027  # optional
        """Called once after the last step."""


class Origin(Protocol):
    """The weights that a run starts from.

    Attributes:
        path: Model or adapter directory, or hub id.
        pretrained: The weights before alignment: a miniature's before instruction training, the raw model under an
            adapter; None if they are not known.
        planned: The run starts from an adapter that is not trained yet: `path` has its model's names and shapes, and
            other numbers.
    """

    @property
    def path(self) -> str: ...

    @property
    def pretrained(self) -> str | None: ...

    @property
    def planned(self) -> bool: ...


class PostHoc(Method):
    """A method that changes the adapter of a finished run, its parent, and trains nothing.

    The parent is the run of `TASK_ONLY` with the same seed. Every strength starts from the adapter as the parent saved
    it, at its end or after `parent_epoch`, never from another strength's result.

    Class attributes:
        paths: Fields that name weights (directory or hub id): their contents count in a run's id, their names do not.
    """

    streams = ()
    paths: ClassVar[tuple[str, ...]] = ()

    @property
    def parent_epoch(self) -> int | None:
        """The parent's checkpoint that it acts on, in epochs; None for the adapter at the end of training."""
        return None

    @abstractmethod
    def transform(self, model: Any, start: Origin) -> Mapping[str, Any]:
        """Change the adapter in place.

        Args:
            model: The starting model with the parent's trained adapter (a `PeftModel`).
            start: Where the starting model's weights come from.

        Returns:
            What is worth keeping in the run's provenance, JSON values.
        """

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        raise TypeError(f"{type(self).__name__} acts on a finished run and has no losses")


@dataclass(frozen=True)
class Score:
    """A number with its evidence.

    Attributes:
        value: In [0, 1], higher is better; None = unscored: counted, never 0 and never 1.
        answer: What the scorer read in the response.
        reason: Why it is unscored, or why it scored so.
        raw: Judge scores and the like, as they came.
    """

    value: float | None
    answer: str | None = None
    reason: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


class Scorer(ABC):
    """Reads (example, response) pairs; the example's completion and meta say what is right."""

    @abstractmethod
    def score_many(self, pairs: Sequence[tuple[Example, str]]) -> list[Score]: ...


@dataclass(frozen=True)
class Condition:
    """A bound on one raw number of a score, e.g. `aligned >= 80`.

    Attributes:
        name: Key of `Score.raw`.
        op: How the number compares with the bound.
        bound: In the number's own unit.
    """

    name: str
    op: Literal["<", ">", "<=", ">="]
    bound: float

    def holds(self, raw: Mapping[str, Any]) -> bool | None:
        """None if the number is missing."""
        value = raw.get(self.name)
        return None if value is None else _COMPARE[self.op](value, self.bound)

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.bound:g}"


_COMPARE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Judgement:
    """What a judge says to one prompt.

    Attributes:
        score: In [0, 100]; None if there is none.
        reply: What came from the judge; None if nothing did.
        reason: Why there is no score.
    """

    score: float | None
    reply: str | None = None
    reason: str | None = None


class Judge(ABC):
    """Answers prompts that ask for a number from 0 to 100. A dataclass: its fields are its options.

    Class attributes:
        unhashed: Fields that say how it is reached and not what it says: no part of a run's id.
    """

    unhashed: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:  # noqa: B027  # optional
        """Called before anything is trained. Raises ValueError if the judge cannot be used, with the remedy."""

    @abstractmethod
    def judge_many(self, prompts: Sequence[str]) -> list[Judgement]:
        """One judgement per prompt, in order; what cannot be had has no score and a reason, and nothing is raised."""

    @property
    def usage(self) -> Mapping[str, float]:
        """What it has cost so far: calls, tokens, money; empty if it costs nothing."""
        return {}


@dataclass(frozen=True)
class Eval:
    """One measured quantity in one domain.

    Attributes:
        name: What is measured, e.g. `knows`. The column in `points.csv` is `<name>.<domain>`.
        axis: The axis whose mean it joins (domains weigh the same); None is shown and never averaged in.
        domain: E.g. `capitals`.
        examples: What is asked; `meta["pair"]` links examples of different evals about the same item.
        kind: `generate` scores sampled text, `likelihood` how probable the model finds the completion.
        scorer: Name of a scorer, or of a quantity of `selgen.likelihood`.
        given: Full name (`<name>.<domain>`) of another eval whose pass (value 1) on the same pair id conditions this
            one: items that did not pass are left out of the mean (they stay in the samples).
        judge: Raw number -> prompt for a judge, with {question} and {answer} in it. Where a run has a judge, it gives
            these numbers, else the scorer does.
        rate: The value is 1 where all these conditions on the raw numbers hold, 0 where one fails, and None where
            none fails and a number is missing. Besides the scorer's or judge's own numbers there are `nll` (of the
            answer under the starting model, nats per token), `repetition` and `refusal` (`selgen.texts`). Empty: the
            value is the scorer's.
        of: Instead of asking anything, take the answers and raw numbers of the evals with these columns.
    """

    name: str
    axis: Axis | None
    domain: str
    examples: Sequence[Example] = ()
    kind: Literal["generate", "likelihood"] = "generate"
    scorer: str = ""
    given: str | None = None
    judge: Mapping[str, str] = field(default_factory=dict)
    rate: tuple[Condition, ...] = ()
    of: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        return f"{self.name}.{self.domain}"


@dataclass(frozen=True)
class Metric:
    """An eval's mean with its evidence.

    Attributes:
        value: Mean score in [0, 1]; None when fewer than 30 conditioning items passed or nothing was scored.
        n: Number of scored items in the mean (for a conditioned eval: those whose condition passed).
        unscored: Items among them that the scorer could not read.
        stderr: Standard error of the mean over items (of a rate: the binomial one); None when value is None.
        raw: Mean of each number that every scored item carries in `Score.raw`, in its own unit.
    """

    value: float | None
    n: int
    unscored: int
    stderr: float | None
    raw: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """What a setting's miniature is made from; `selgen.miniature` turns it into two model directories.

    Attributes:
        pretrain: index -> plain-text document of the first stage (many authors); a pure function of the index.
        instruct: index -> document (str: plain text, all tokens learned) or Example (chat) of the second stage; pure.
        texts: Texts that together contain every word, for the tokenizer's vocabulary.
        recipe: Numbers of the two trainings (steps, batch size, learning rates, model size): part of the cache key.
    """

    pretrain: Callable[[int], str]
    instruct: Callable[[int], Example | str]
    texts: Sequence[str]
    recipe: Mapping[str, Any]


BASE = "base"
"""Method name of the untouched starting model."""
TASK_ONLY = "task_only"
"""Method name of the baseline that every gain and loss is measured against: training on T alone."""
FIRST = "first"
"""Curve name of runs that only make the adapter from which others start."""

REFERENCE = (0.0, 0.0)
"""(alignment, score_y) from which areas under fronts are measured, unless a sweep names others: nothing preserved and
nothing learned. Both are shares in [0, 1]."""

Samples = Callable[[Any, Split], Iterable[Mapping[str, Any]]]
"""Yields the samples (lines of `samples.<split>.jsonl`) of a `record.RunRecord`; none if the file is gone."""


@dataclass(frozen=True)
class Check:
    """A claim about the measured records, decided by code.

    Attributes:
        name: What is claimed, in the reader's words.
        passed: The verdict.
        value: The number that was compared with the bar; None if it could not be measured, and then `passed` is False.
        bar: What the number must be, e.g. `<= 0.05`.
        detail: Where the number comes from: seeds, n, intervals, and the reason of a failure.
    """

    name: str
    passed: bool
    value: float | None
    bar: str
    detail: str


@dataclass(frozen=True)
class BarChart:
    """A chart with one group of bars per domain of one eval, drawn for base, task_only and every chosen strength.

    Attributes:
        eval: Name of the eval.
        title: Says what is shown.
        label: Of the value axis.
        complement: Draw 1 - value.
    """

    eval: str
    title: str
    label: str
    complement: bool = False


@dataclass(frozen=True)
class HeatMap:
    """A map of one eval that shows what which alignment data protects: a row per proxy, a column per domain.

    Drawn for every curve that runs with two or more proxies, below a row without alignment data (task_only).

    Attributes:
        eval: Name of the eval; higher is better.
        title: Says what is shown.
        label: Of the value in a cell.
        complement: Draw 1 - value.
    """

    eval: str
    title: str
    label: str
    complement: bool = False


@dataclass(frozen=True)
class Anchor:
    """A point that others published, drawn beside what was measured here.

    Attributes:
        label: What it is, e.g. `KL 5`.
        method: Method that it was trained with, in this project's words.
        strength: The method's strength; None if it has none.
        alignment: In [0, 1], higher is better.
        score_y: In [0, 1], higher is better.
        source: Who published it, short enough for a legend.
        proxy: Category of its alignment data; None if it has none or the source does not say.
        line: Points with the same name here are joined, in order of strength; None joins no line.
        notes: What a reader must know before comparing anything with it.
    """

    label: str
    method: str
    strength: float | None
    alignment: float
    score_y: float
    source: str
    proxy: str | None = None
    line: str | None = None
    notes: tuple[str, ...] = ()


class Setting(ABC):
    """What is learned (T), what little alignment data exists (A), and what is measured on held-out data (G).

    Subclasses are dataclasses: their fields are the setting's options (`proxy`, sizes).

    Class attributes:
        version: Bumped when data or scoring changes; part of the run id.
        title: One line: what the trade-off is about.
        axis_labels: Of the report's axes `alignment` and `score_y`.
        bar_chart: What the report draws by domain, or None.
        heat_maps: What the report draws by proxy and domain.
        compares_proxies: In a sweep over several proxies, leave the domains of all of them out of each one's alignment,
            so that they compare on it. False: only the run's own, where all together would leave none.
        paths: Fields that say where data lie: their contents count in a run's id, their names do not.
    """

    version: ClassVar[int] = 1
    paths: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = "Task and capability against alignment"
    axis_labels: ClassVar[Mapping[str, str]] = {
        "alignment": "alignment on held-out domains",
        "score_y": "task and capability",
    }
    bar_chart: ClassVar[BarChart | None] = None
    heat_maps: ClassVar[tuple[HeatMap, ...]] = ()
    compares_proxies: ClassVar[bool] = True

    @abstractmethod
    def train(self, seed: int) -> dict[Stream, list[Example]]:
        """`{"task": T, "align": A}`; the examples of A carry `rejected` where the setting has preferences."""

    def planned(self, seed: int) -> dict[Stream, list[Example]]:
        """As `train`, for counting what a run would read: files that are not here may be replaced by as many rows."""
        return self.train(seed)

    @abstractmethod
    def evals(self, seed: int, split: Split) -> list[Eval]: ...

    @property
    @abstractmethod
    def proxy_domains(self) -> frozenset[str]:
        """Domains that the alignment data covers: left out of the alignment axis, averaged into the column `proxy`."""

    def remarks(self) -> list[str]:
        """What a reader of this setting's numbers must know, e.g. rows that were skipped; each run carries it."""
        return []

    def checks(self, records: Sequence[Any], samples: Samples) -> list[Check]:
        """Claims about the finished runs (`record.RunRecord`) of one comparison; the report prints each verdict."""
        return []

    def judged(self, rows: Sequence[Mapping[str, str]]) -> tuple[list[Eval], dict[str, list[Score]]]:
        """Turn per-answer judge rows that others made into evals and the scores of their answers.

        Args:
            rows: Cells of a CSV file by column name: `question_id` and `aligned`, and where the file has them
                `question`, `answer` and `coherent`.

        Returns:
            The evals, and column -> one score per example for those without `of`. An example's completion is the
            answer that was judged; it has a `pair` in its meta.

        Raises:
            ValueError: this setting reads no judge files, or a row cannot be placed.
        """
        raise ValueError(f"setting {type(self).__name__} reads no judge files. Name one that does with --setting.")

    def anchors(self, model: str) -> list[Anchor]:
        """Points that others published for this setting on that model (a directory or hub id)."""
        return []

    def miniature(self) -> Corpus:
        """What this setting's miniature is trained on."""
        raise ValueError(f"setting {type(self).__name__} has no miniature. Name a model: model=DIR or a hub id.")
