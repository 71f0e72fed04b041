"""A test engine in place of the model: it answers at once, out of order as the real one does, and reproducibly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from safeguard_cli.engine.local.process import EngineSpec
from safeguard_cli.engine.reports import Listen
from safeguard_cli.prompt.contract import Completion, Feed, Prompt


class FakeEngine:
    """An engine that takes a few steps for each row.

    As with a real one, scores move with what was decoded since the last RESET. Rows for which `error` is true fail.
    `before` is called with each prompt that is asked for.
    """

    deaths = policy_tokens = 0

    def __init__(
        self,
        spec: EngineSpec,
        log: Callable[[str], None] = lambda _: None,
        report: Listen | None = None,
        *,
        error: Callable[[Prompt], bool] = lambda _: False,
        before: Callable[[Prompt], None] = lambda _: None,
    ) -> None:
        self.slots = spec.plan.slots
        self.labels = [len(prefix.contract.labels) for prefix in spec.prefixes]
        self.error, self.before = error, before

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def complete(self, prompts: Iterable[Prompt | Feed]) -> Iterator[Completion]:
        source, active, history, ended = iter(prompts), [], 0, False
        while not ended or active:
            while not ended and len(active) < self.slots:
                prompt = next(source, Feed.END)
                if prompt is Feed.RESET:
                    assert not active
                    history = 0
                    continue
                if not isinstance(prompt, Prompt):
                    ended = prompt is Feed.END
                    break
                self.before(prompt)
                key = hash((prompt.ids, prompt.policy))  # of integers, so the same in every process
                history = hash((key, history))
                active.append([1 + key % 5, prompt, history])
            for slot in list(active):
                slot[0] -= 1
                if not slot[0]:
                    active.remove(slot)
                    yield self.answer(slot[1], slot[2])

    def answer(self, prompt: Prompt, history: int) -> Completion:
        if self.error(prompt):
            return Completion(prompt, (), error="asked to fail")
        first = history % 1000 / 1000
        rest = [(1 - first) / (self.labels[prompt.policy] - 1)] * (self.labels[prompt.policy] - 1)
        return Completion(prompt, (first, *rest))


class Steady(FakeEngine):
    """An engine whose scores do not depend on what else is decoded: a shard's are the same as the whole input's."""

    def answer(self, prompt: Prompt, history: int) -> Completion:
        return super().answer(prompt, hash(prompt.ids))


def failing(*rows: int) -> Callable[..., FakeEngine]:
    return lambda *given: FakeEngine(*given, error=lambda prompt: prompt.row in rows)
