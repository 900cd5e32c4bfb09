"""A judge that is a Hugging Face model on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from selgen.core import Judge, Judgement
from selgen.judges._cache import Verdicts, identity, worth_keeping
from selgen.judges._reading import no_mass, weighted_mean

if TYPE_CHECKING:
    from selgen.judges._numbers import Nexts, Spelling


@dataclass
class Local(Judge):
    """Reads the score off the probabilities with which a model begins its answer; nothing is sampled.

    score = sum over n of n p(n) / sum over n of p(n),  n = 0 ... 100, after the model's chat template (thinking off
    where the template knows it). p(n) is the probability that the answer begins with the tokens of n and does not go on
    to another of the numbers: p("8") leaves out what belongs to 80 ... 89 where a tokenizer writes digits one by one.
    Where every number is one token it is that token's probability, as in the published judges (Betley et al., Emergent
    Misalignment, 2025). If the numbers have less than a quarter of the probability together there is no score.

    Verdicts are kept on disk under the fingerprint of the weights, as those of `Endpoint` are.

    Args:
        model: Directory or hub id.
        dtype: Of its weights.
        batch_size: Prompts per forward pass, >= 1.

    Cost: one forward pass per prompt, without a key-value cache; 11 where digits are tokens.
    """

    model: str
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    batch_size: int = 8

    unhashed = ("batch_size",)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"judge.batch_size should be >= 1, found {self.batch_size}. Use 1 or more.")
        self._tokenizer: Any = None
        self._model: Any = None
        self._spelling: Spelling | None = None
        self._fingerprint = ""
        self._usage: Counter[str] = Counter()

    def check(self) -> None:
        """Open the tokenizer and the cache; the weights are not loaded.

        Raises:
            ValueError: there is no such model, its tokenizer cannot write the numbers, or the cache is damaged.
        """
        self._open()
        with Verdicts(self._identity()) as verdicts:
            verdicts.get(["ready?"])

    def judge_many(self, prompts: Sequence[str]) -> list[Judgement]:
        found: dict[str, Judgement] = {}
        why = ""
        try:
            self._open()
            with Verdicts(self._identity()) as verdicts:
                found |= verdicts.get(list(dict.fromkeys(prompts)))
                self._usage["cached"] += len(found)
                # Prompts of about the same length share a batch, which is as wide as its longest.
                missing = sorted({p for p in prompts if p not in found}, key=lambda p: (len(p), p))
                for start in range(0, len(missing), self.batch_size):
                    batch = missing[start : start + self.batch_size]
                    for prompt, judgement in zip(batch, self._judge(batch), strict=True):
                        found[prompt] = judgement
                        if worth_keeping(judgement):
                            verdicts.put(prompt, judgement)
        except Exception as error:  # a judge raises nothing: no model, no memory, no cache
            why = _why(error)
        return [found.get(p, Judgement(None, None, why)) for p in prompts]

    @property
    def usage(self) -> Mapping[str, float]:
        """Prompts put to the model (`calls`) and prompts answered from disk (`cached`)."""
        return {name: self._usage[name] for name in ("calls", "cached")}

    def _identity(self) -> dict[str, Any]:
        return identity(self, model=self._fingerprint)

    def _open(self) -> None:
        """The tokenizer and what names the weights, once."""
        from selgen import models
        from selgen.judges._numbers import spell

        if self._spelling is not None:
            return
        try:
            tokenizer, fingerprint = models.load_tokenizer(self.model), models.fingerprint(self.model)
        except OSError as error:
            raise ValueError(
                f"judge.model should be a model directory or a hub id, found {self.model!r}, which cannot be opened "
                f"({str(error).splitlines()[0]}). Correct it."
            ) from error
        spelling = spell(tokenizer, self.model)
        self._tokenizer, self._fingerprint, self._spelling = tokenizer, fingerprint, spelling

    def _judge(self, prompts: Sequence[str]) -> list[Judgement]:
        from selgen.judges._numbers import next_probabilities

        assert self._spelling is not None
        model = self._load()
        try:
            nexts = next_probabilities(model, self._tokenizer, prompts, list(self._spelling.children))
        except Exception as error:  # of these prompts, such as too little memory: others may be shorter
            return [Judgement(None, None, _why(error))] * len(prompts)
        self._usage["calls"] += len(prompts)
        return [self._read(after) for after in nexts]

    def _load(self) -> Any:
        import torch

        from selgen import models

        if self._model is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._model = models.load(self.model, self.dtype)[0].to(device).eval()
        return self._model

    def _read(self, after: Nexts) -> Judgement:
        assert self._spelling is not None
        mean, mass = weighted_mean(self._spelling.probabilities(after).items())
        # Evidence of what the model would rather say, where it says no number.
        likeliest = self._tokenizer.decode([int(after[()].argmax())])
        return Judgement(mean, likeliest, None if mean is not None else no_mass(mass))


def _why(error: Exception) -> str:
    return f"not judged: {type(error).__name__}: {error}"
