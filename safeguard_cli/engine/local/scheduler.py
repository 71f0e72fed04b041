"""Chooses what goes into the next batch.

Policy prefixes are decoded once and shared, texts are read in chunks beside rows that are being decoded, and a new row
starts as soon as one ends. The schedule is a function of the prompts alone, never of time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safeguard_cli.engine.decoding import NO_LOGITS, Coroutine, Options, Split, Step, Trie, Vote, decide, overhead
from safeguard_cli.engine.local.model import Model
from safeguard_cli.engine.local.plan import Plan
from safeguard_cli.engine.local.prefix_store import PrefixStore
from safeguard_cli.engine.reports import Listen, Report, Reporter
from safeguard_cli.engine.sampling import BadLogits, Logits
from safeguard_cli.errors import EngineError
from safeguard_cli.prompt.contract import Completion, Feed, Prefix, Prompt


@dataclass(slots=True, eq=False)
class Row:
    """A row under way: its sequence, and the most cells that its text and one answer about it take.

    Where votes are cast, `split` has those of now, each from `position` on, and `running` counts those that a slot has.
    """

    prompt: Prompt
    coroutine: Coroutine
    sequence: int
    text: int
    answer: int
    running: int = 1
    split: Split | None = None
    position: int = 0

    @property
    def cells(self) -> int:
        """Return the most cells that it takes; room for one vote is kept for it, so that it can always go on."""
        return self.text + self.answer * max(1, self.running)


@dataclass(slots=True, eq=False)
class Slot:
    """A row being decoded, or its vote `number`: sequence, coroutine, the present step and how much of that is fed."""

    row: Row
    number: int | None
    sequence: int
    branch: int
    coroutine: Coroutine | Vote
    position: int
    step: Step
    tokens: npt.NDArray[np.int32]
    unread: int = 0  # tokens of the prompt that are not yet fed
    fed: int = 0
    first_output: int = 0
    written: int = 0  # tokens that the model chose freely

    @property
    def remaining(self) -> int:
        return len(self.tokens) - self.fed


class Scheduler:
    """Decodes prompts under a few policies on one model; `prefixes` and `tries` are by policy.

    `decoded_tokens` counts the tokens that the model was fed, `policy_tokens` those of policies among them. `listen`
    gets a few Reports a second.
    """

    def __init__(
        self,
        model: Model,
        prefixes: Sequence[Prefix],
        options: Options,
        plan: Plan,
        store: PrefixStore | None = None,
        listen: Listen | None = None,
    ) -> None:
        self.model, self.prefixes, self.options, self.plan = model, prefixes, options, plan
        self.tries = [Trie(prefix.contract) for prefix in prefixes]
        self.overheads = [overhead(trie, options) for trie in self.tries]
        self.store = store
        self.decoded_tokens = self.policy_tokens = 0
        self._resident: dict[int, None] = {}  # policies whose prefix is decoded, least recently used first
        self._rows: list[Row] = []
        self._active: list[Slot] = []
        self._waiting: deque[tuple[Row, int]] = deque()  # votes that no slot has yet, by number
        self._free = self._all_sequences()
        self._read = self._written = self._kept = 0  # see Report
        self._reading = self._writing = 0  # what the present batch adds to them
        self._policy = (0, 0, 0)  # of the policy being read: tokens read, tokens in the present batch, all tokens
        self._reporter = Reporter(listen) if listen else None
        if listen:
            model.watch(self._report_often)
            self._report()

    def complete(self, prompts: Iterable[Prompt | Feed]) -> Iterator[Completion]:
        """Yield completions as they finish; prompts are started in order, and all votes on one before the next one.

        HOLD among the prompts means: start none until a row has finished. RESET, which may come only when no row is in
        flight, means: decode what follows as if nothing had been before. Raises EngineError when llama.cpp fails,
        ValueError for a prompt that would not fit even alone.
        """
        source = iter(prompts)
        head: Prompt | None = None
        ended = False
        while not ended or self._rows or head:
            while len(self._active) < self.plan.slots:
                if self._waiting:
                    if not self._start_vote():
                        break
                    continue
                if head is None:
                    following = next(source, Feed.END) if not ended else Feed.END
                    if following is Feed.RESET:
                        self._reset()
                        continue
                    ended = following is Feed.END
                    if not isinstance(following, Prompt):
                        break
                    head = following
                if not self._admit(head):
                    break
                head = None
            if self._active:
                yield from self._decode()
                self._report_often()
                if not self._rows:
                    self._report()

    def _report_often(self, share: float = 1.0) -> None:
        """Report progress if it is time to; `share` of the present batch is computed."""
        if self._reporter:
            self._reporter.offer(lambda: self._how_far(share))

    def _report(self) -> None:
        """Report progress at once, because another stage begins."""
        if self._reporter:
            self._reporter.now(self._how_far(0))

    def _how_far(self, share: float) -> Report:
        done, more, size = self._policy
        return Report(
            policy=done + int(share * more),
            policy_size=size,
            kept=self._kept,
            under_way=len({(row.prompt.part, row.prompt.row) for row in self._rows}),
            read=self._read + int(share * self._reading),
            written=self._written + int(share * self._writing),
        )

    def _reset(self) -> None:
        """Bring every cell of the cache into its state after the prefixes alone.

        A token's place in the cache decides the order of summation, and with it the last bits of the logits.
        """
        assert not self._rows
        saved = [(policy, self.model.save(policy)) for policy in sorted(self._resident)]
        self.model.clear()
        for policy, state in saved:
            self.model.restore(policy, state)
        self._resident = {policy: None for policy, _ in saved}
        self._free = self._all_sequences()

    def _all_sequences(self) -> list[int]:
        return [*reversed(range(len(self.prefixes), self.plan.context(len(self.prefixes)).sequences))]

    def _admit(self, prompt: Prompt) -> bool:
        """Start a row if its worst case fits beside those of all running rows, so that none ever runs out of cells."""
        text, answer = len(prompt.ids), self.overheads[prompt.policy]
        need = text + answer
        prefix = self.prefixes[prompt.policy]
        if need + len(prefix.ids) > self.plan.cells:
            raise ValueError(f"a prompt of {need} tokens beside its policy cannot fit {self.plan.cells} cells")
        if not self._make_room(prompt.policy, need):
            return False
        if prompt.policy not in self._resident:
            self._load_prefix(prompt.policy)
        self._resident[prompt.policy] = self._resident.pop(prompt.policy, None)
        row = Row(prompt, decide(prompt, self.tries[prompt.policy], self.options), self._free.pop(), text, answer)
        self.model.copy(prompt.policy, row.sequence)
        self._rows.append(row)
        step = next(row.coroutine)
        assert isinstance(step, Step)
        branch, position = self._free.pop(), len(prefix.ids)
        self._active.append(Slot(row, None, row.sequence, branch, row.coroutine, position, step, _ids(step), text))
        return True

    def _start_vote(self) -> bool:
        """Start the vote that waits longest if it fits. A row without a vote under way has room kept for one."""
        row, number = self._waiting[0]
        if row.running and not self._make_room(row.prompt.policy, row.answer):
            return False
        self._waiting.popleft()
        assert row.split
        coroutine, sequence = row.split.votes[number], self._free.pop()
        self.model.copy(row.sequence, sequence)
        row.running += 1
        branch, step = self._free.pop(), next(coroutine)
        self._active.append(Slot(row, number, sequence, branch, coroutine, row.position, step, _ids(step)))
        return True

    def _make_room(self, policy: int, need: int) -> bool:
        """Return whether a row fits; drop unused prefixes, least recently used first, as long as it does not."""
        held = sum(row.cells for row in self._rows)
        used = {row.prompt.policy for row in self._rows} | {policy}
        idle = [p for p in self._resident if p not in used]
        total = held + need + sum(len(self.prefixes[p].ids) for p in {*self._resident, policy})
        while total > self.plan.cells and idle:
            dropped = idle.pop(0)
            total -= len(self.prefixes[dropped].ids)
            del self._resident[dropped]
            self.model.drop(dropped)
        return total <= self.plan.cells

    def _load_prefix(self, policy: int) -> None:
        """Load a policy's tokens into its own sequence, which is never extended: a rewound one loses its window."""
        ids = self.prefixes[policy].ids
        state = self.store.load(ids) if self.store else None
        if state is not None:
            with suppress(EngineError):  # a state of another llama.cpp after all
                self.model.restore(policy, state)
                if self.model.length(policy) == len(ids):
                    self._kept += len(ids)
                    self._report()
                    return
            self.model.drop(policy)
        self._decode_prefix(policy, np.array(ids, np.int32))
        if self.store:
            self.store.save(ids, self.model.save(policy))

    def _decode_prefix(self, policy: int, ids: npt.NDArray[np.int32]) -> None:
        self._reading = self._writing = 0
        for begin in range(0, len(ids), self.plan.batch):
            self.model.batch.clear()
            self.model.batch.add(policy, begin, ids[begin : begin + self.plan.batch])
            self._policy = begin, self.model.batch.size, len(ids)
            self._report()
            self.model.decode()
        self._policy = 0, 0, 0
        self._report()
        self.decoded_tokens += len(ids)
        self.policy_tokens += len(ids)

    def _decode(self) -> Iterator[Completion]:
        """Decode one batch: short steps first, so that rows in flight advance while texts are read in chunks."""
        batch = self.model.batch
        batch.clear()
        self._reading = self._writing = 0
        ready = []
        for slot in sorted(self._active, key=lambda slot: slot.remaining > 1):
            if self._feed(slot):
                ready.append(slot)
        logits = self.model.decode()
        self.decoded_tokens += batch.size
        self._read, self._written = self._read + self._reading, self._written + self._writing
        self._reading = self._writing = 0
        for slot in ready:
            if slot.step.branch:
                self.model.drop(slot.branch)
            first = slot.first_output
            done = self._advance(slot, logits[first : first + len(slot.step.outputs)])
            if done:
                self._leave(slot)
                self._written += done.generated - slot.written  # the token that ended its reasoning does not count
                if slot.number is not None:
                    self._forget(slot.sequence)
                    done = self._cast(slot.row, slot.number, done)
                if done:
                    self._end(slot.row)
                    yield done

    def _leave(self, slot: Slot) -> None:
        """Give up a slot, but not its sequence."""
        self._active.remove(slot)
        self._free.append(slot.branch)
        slot.row.running -= 1

    def _forget(self, sequence: int) -> None:
        self.model.drop(sequence)
        self._free.append(sequence)

    def _end(self, row: Row) -> None:
        self._rows.remove(row)
        self._forget(row.sequence)

    def _split(self, row: Row, split: Split) -> None:
        """Have votes on a row wait for slots."""
        row.split = split
        self._waiting += ((row, number) for number in split.votes)

    def _cast(self, row: Row, number: int, vote: Completion) -> Completion | None:
        """Take a vote; with the last one that a row waits for, return its completion or have further votes wait."""
        assert row.split
        row.split.cast[number] = vote
        if len(row.split.cast) < len(row.split.votes):
            return None
        try:
            following = row.coroutine.send(NO_LOGITS)
        except StopIteration as stop:
            done: Completion = stop.value
            return done
        assert isinstance(following, Split)
        self._split(row, following)
        return None

    def _feed(self, slot: Slot) -> bool:
        """Put as much of the slot's step into the batch as fits; return whether this decode gives its logits."""
        batch = self.model.batch
        take = min(slot.remaining, batch.room)
        whole = take == slot.remaining
        if whole and batch.outputs + len(slot.step.outputs) > self.model.size.outputs:
            return False  # this decode has no room for its logits
        if slot.step.branch and not whole:
            return False  # a branch goes in whole
        if not take:
            return False
        sequence = slot.sequence
        if slot.step.branch:
            self.model.copy(slot.sequence, slot.branch)
            sequence = slot.branch
        tokens = slot.tokens[slot.fed : slot.fed + take]
        wanted = tuple(i - slot.fed for i in slot.step.outputs) if whole else ()
        slot.first_output = batch.add(sequence, slot.position + slot.fed, tokens, wanted)
        slot.fed += take
        read = min(take, slot.unread)
        slot.unread -= read
        self._reading += read
        if whole and slot.step.most:
            slot.written += 1
            self._writing += 1
        return whole

    def _advance(self, slot: Slot, logits: Logits) -> Completion | None:
        """Give a slot its logits; return its completion, or None after setting its next step."""
        if not slot.step.branch:
            slot.position += len(slot.tokens)
        try:
            following = slot.coroutine.send(logits)
        except StopIteration as stop:
            result: Completion = stop.value
            return result
        except BadLogits:
            return Completion(slot.row.prompt, (), error="the model's output for this row holds no valid numbers")
        if isinstance(following, Split):
            self._leave(slot)
            slot.row.position = slot.position
            self._split(slot.row, following)
        else:
            slot.step, slot.tokens, slot.fed = following, _ids(following), 0
        return None


def _ids(step: Step) -> npt.NDArray[np.int32]:
    return np.array(step.tokens, np.int32)
