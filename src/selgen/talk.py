"""A conversation with the starting model and the tuned one, side by side."""

from __future__ import annotations

from selgen.core import Message
from selgen.generate import Generation
from selgen.opened import Opened


class Talk:
    """Two conversations that hear the same user; each model reads its own earlier answers.

    Args:
        opened: The tuned model and its starting model.
        generation: How answers are sampled.
        system: System prompt of both, or None.
    """

    def __init__(self, opened: Opened, generation: Generation, system: str | None = None) -> None:
        self._opened = opened
        self._generation = generation
        self._system = system
        self.restart()

    @property
    def name(self) -> str:
        return self._opened.name

    def restart(self) -> None:
        """Forget what was said."""
        begin = [] if self._system is None else [Message(role="system", content=self._system)]
        self._base, self._tuned = list(begin), list(begin)

    def say(self, text: str) -> tuple[str, str]:
        """The answers of the starting and the tuned model."""
        answers = []
        sides = ((self._base, self._opened.answer_of_start), (self._tuned, self._opened.answer))
        for messages, answer in sides:
            messages.append(Message(role="user", content=text))
            said = answer(messages, self._generation)
            messages.append(Message(role="assistant", content=said))
            answers.append(said)
        return answers[0], answers[1]
