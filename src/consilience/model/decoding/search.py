"""The search of the sum: greedy, beams, groups of beams and samples, in one loop.

What is summed at a step is

    p(y_t | x, y_<t) = sum over d of w_d(y_<t) p(y_t | x, d, y_<t)

RAG-Token and weighted averages keep the weights. RAG-Sequence moves them to the posterior given
what was written, `w_d(y_<t)` proportional to `p(d | x) p(y_<t | x, d)`, and the product of its
steps is then exactly its sum over whole answers. So no candidate needs re-scoring, and the
posterior of each token is at hand without another pass.

Questions are searched side by side. Those that are settled are taken out of the batch when the
generator can do that and a quarter of the batch is settled; what remains is not changed by it. A
row less saves at each step three times what it costs to copy a row that stays, once (shipped model,
processor), so from a quarter on the copy is paid for by the next step.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from consilience.generation import Bounded, Generator, NextToken, Shrinking
from consilience.model.decoding.choosing import Choice, Step, choose_beams, choose_samples
from consilience.model.decoding.distribution import summed
from consilience.model.decoding.frontier import DEAD, Frontier
from consilience.model.decoding.options import DecodingOptions
from consilience.model.decoding.processors import processed, rules_of
from consilience.model.decoding.quoting import Quotable
from consilience.model.decoding.result import Finished
from consilience.model.decoding.sampling import Draws
from consilience.model.decoding.stopping import Stops


class Search:
    """One search over a batch of questions, advanced token by token.

    Args:
        generator: Whose memory it is.
        memory: Of `b * k` rows, question-major.
        state: The generator's at the start.
        first: The first token's distribution, `[b * k, 1, v]`.
        log_weights: log prior, `[b, k]`.
        options: How to search.
    """

    def __init__(
        self,
        generator: Generator,
        memory: Any,
        state: Any,
        first: NextToken,
        log_weights: Tensor,
        options: DecodingOptions,
    ) -> None:
        if isinstance(generator, Bounded):
            options = options.within(generator.longest_answer(memory))
        self.generator, self.options = generator, options
        self._memory, self._state, self._following = memory, state, first
        self._groups, self._k = options.groups, log_weights.shape[1]
        self._rules = rules_of(options, generator)
        self._opening = torch.tensor(options.opening, dtype=torch.long, device=generator.device)
        self._draws = Draws(options)
        self._stop_strings = Stops(generator, options.stop)
        self._quotable: Quotable | None = None
        if options.quote:
            self._quotable = Quotable.of(generator, memory, questions=len(log_weights))
        self.frontier = Frontier.at_start(
            log_weights.repeat_interleave(options.groups, dim=0),
            lanes=options.returned if options.sample else 1,
        )
        self.finished: list[list[Finished]] = [[] for _ in self.frontier.scores]
        self._searches = list(range(len(self.finished)))
        self._step = Step(0, generator.end, options)

    def run(self) -> list[list[Finished]]:
        """Search to the end; the answers of every question, best first, samples as drawn."""
        for _ in self.steps():
            pass
        return self.answers()

    def steps(self) -> Iterator[None]:
        """Search, stopping after every token."""
        while True:
            self._advance()
            yield
            if not bool((self.frontier.scores > DEAD).any()):
                return
            self._shrink()
            self._ask()

    def answers(self) -> list[list[Finished]]:
        """What has been finished, by question."""
        return [self.answers_to(q) for q in range(len(self.finished) // self._groups)]

    def answers_to(self, question: int) -> list[Finished]:
        """What has been finished of one question, best first, samples as drawn."""
        at = question * self._groups
        together = [one for group in self.finished[at : at + self._groups] for one in group]
        return sorted(together, key=self._order)[: self.options.returned]

    def open_ends(self) -> dict[int, list[tuple[list[int], Tensor]]]:
        """Of every question that is not settled, what its open ends have written.

        Returns:
            Tokens, and their log p given each passage, `[k, tokens]`, by question.
        """
        frontier = self.frontier
        searches, ends = (frontier.scores > DEAD).nonzero(as_tuple=True)
        ids, given = frontier.ids[searches, ends].tolist(), frontier.given[searches, :, ends]
        found: dict[int, list[tuple[list[int], Tensor]]] = {}
        for search, *written in zip(searches.tolist(), ids, given, strict=True):
            found.setdefault(self._searches[search] // self._groups, []).append(tuple(written))
        return found

    def drop(self, question: int) -> None:
        """Write no more on a question; its rows leave the batch with those that are settled."""
        for place, search in enumerate(self._searches):
            if search // self._groups == question:
                self.frontier.scores[place] = DEAD

    def _order(self, one: Finished) -> float:
        return one.lane if self.options.sample else -one.score

    def _advance(self) -> None:
        """One token more for every open end."""
        following, frontier = self._following, self.frontier
        choice = self._choose(self._mixed(following))
        ends = frontier.ends.gather(1, choice.parents)
        given = self._given(following, choice, ends)
        frontier.follow(choice.parents)
        frontier.scores = choice.scores
        frontier.append(choice.tokens, given, move=self.options.fusion == "sequence")
        self._retire()
        frontier.keep(self.options.lanes)
        self._settle()
        self._step = Step(self._step.number + 1, self.generator.end, self.options)

    def _mixed(self, following: NextToken) -> NextToken:
        """The sum over passages under the rules of this step, `[s, n, v]`."""
        s, k, n = self.frontier.weights.shape
        weights = self.frontier.weights.view(-1, self._groups, k, n).transpose(1, 2)
        if self._step.number == 0:
            following = _spread(following, self._groups * n)
        mixed = summed(following, weights.reshape(-1, k, self._groups * n))
        mixed = NextToken(mixed.weights.reshape(s, n, -1), mixed.totals.reshape(s, n))
        if self._quotable is not None:
            mixed = self._quotable.limit(mixed, self.frontier.ids)
        rules = tuple(rule for rule in self._rules if rule.active(self._step.number))
        before = self._opening.expand(s, n, -1)
        written = torch.cat([before, self.frontier.ids], dim=-1) if rules else before
        return processed(mixed, rules, written, own=k > 1)

    def _choose(self, mixed: NextToken) -> Choice:
        frontier = self.frontier
        if not self.options.sample:
            return choose_beams(mixed, frontier.scores, self._step)
        uniform = self._draws.next()[frontier.lanes.cpu()]
        return choose_samples(mixed, frontier.scores, self._step, uniform)

    def _given(self, following: NextToken, choice: Choice, ends: Tensor) -> Tensor:
        """Log p of the tokens chosen given each passage, `[s, k, m]`."""
        s, m = choice.tokens.shape
        if self._step.first:
            return choice.scores.new_zeros(s, self._k, m)
        log_probs = following.of(self._by_row(choice.tokens), self._by_row(ends))
        apart = log_probs.view(-1, self._k, self._groups, m)
        return apart.transpose(1, 2).reshape(s, self._k, m)

    def _by_row(self, values: Tensor) -> Tensor:
        """What belongs to open ends `[s, n]` as the generator wants it, `[b * k, groups * n]`."""
        return values.reshape(-1, self._groups * values.shape[1]).repeat_interleave(self._k, dim=0)

    def _retire(self) -> None:
        """Put what is finished aside and strike it out."""
        frontier = self.frontier
        ended = frontier.ids[..., -1] == self.generator.end
        over = ended | self._step.closing
        stops = self._stops()
        for s, i in stops:
            over[s, i] = True
        over &= frontier.scores > DEAD
        for s, i in over[:, : self.options.lanes].nonzero().tolist():
            stop = stops.get((s, i))
            one = self._finish(s, i, ended=stop is None and bool(ended[s, i]), stop=stop)
            self.finished[self._searches[s]].append(one)
        frontier.scores = frontier.scores.masked_fill(over, DEAD)

    def _stops(self) -> dict[tuple[int, int], str]:
        """The stop string that each open end has just completed."""
        if not self.options.stop:
            return {}
        found = {}
        for s, i in (self.frontier.scores > DEAD).nonzero().tolist():
            text = self.generator.decode(self.frontier.ids[s, i].tolist())
            stop = self._stop_strings.first(text)
            if stop is not None:
                found[s, i] = stop
        return found

    def _finish(self, s: int, i: int, *, ended: bool, stop: str | None) -> Finished:
        frontier = self.frontier
        ids = frontier.ids[s, i].tolist()
        return Finished(
            ids=ids,
            given=frontier.given[s, :, i].clone(),
            score=self.options.rank(float(frontier.scores[s, i]), len(ids)),
            ended=ended,
            stopped_by=stop,
            lane=int(frontier.lanes[s, i]),
        )

    def _settle(self) -> None:
        """Strike out every open end of a search that has its answers."""
        best = self.frontier.scores.amax(-1).tolist()
        for s, (search, score) in enumerate(zip(self._searches, best, strict=True)):
            found = self.finished[search]
            if not self.options.sample:
                found.sort(key=lambda one: -one.score)
                del found[self.options.lanes :]
                if self._settled(found, score):
                    self.frontier.scores[s] = DEAD

    def _settled(self, found: list[Finished], best: float) -> bool:
        """Whether a search is over, its best open end having `best`; see `early_stopping`."""
        options, length = self.options, self._step.number + 1
        certain = options.early_stopping == "never" and options.lanes > 1
        needed = min(options.returned, options.lanes) if certain else options.lanes
        if len(found) < needed:
            return False
        if options.lanes == 1 or options.early_stopping is True:
            return True
        if certain and options.length_penalty > 0:
            length = options.closing_step + 1
        return options.rank(best, length) <= found[needed - 1].score

    def _shrink(self) -> None:
        """Go on without the questions that are settled, once they are a quarter of the batch."""
        open_ends = self.frontier.scores > DEAD
        live = open_ends.view(-1, self._groups * open_ends.shape[1]).any(-1)
        if 4 * int(live.sum()) > 3 * len(live) or not isinstance(self.generator, Shrinking):
            return
        questions = live.nonzero()[:, 0]
        rows = _members(questions, self._k)
        searches = _members(questions, self._groups)
        self._memory, self._state = self.generator.keep(self._memory, self._state, rows)
        self.frontier = self.frontier.only(searches)
        if self._quotable is not None:
            self._quotable = self._quotable.only(questions)
        self._searches = [self._searches[s] for s in searches.tolist()]

    def _ask(self) -> None:
        """Write the tokens chosen and ask for what may follow them."""
        frontier = self.frontier
        ids, parents = self._by_row(frontier.ids[..., -1]), self._by_row(frontier.ends)
        self._following = self.generator.step(self._memory, self._state, ids, parents)
        n, groups = frontier.ids.shape[1], self._groups
        ends = torch.arange(groups * n, device=ids.device).view(groups, n)
        frontier.ends = ends.repeat(len(frontier.ids) // groups, 1)


def _spread(first: NextToken, ends: int) -> NextToken:
    """The one open end at the start, as that of every group or sample."""
    return NextToken(first.weights.expand(-1, ends, -1), first.totals.expand(-1, ends))


def _members(owners: Tensor, size: int) -> Tensor:
    """The places of what belongs to each owner, `size` in a row each."""
    within = torch.arange(size, device=owners.device)
    return (owners[:, None] * size + within).reshape(-1)
