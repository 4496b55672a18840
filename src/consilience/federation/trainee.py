"""`RagTrainee`: a party's model over its own store and questions, resident between rounds.

    state/
      questions.jsonl    the questions that were made, where the party has none
      training/          what training writes: logs of the rounds, a batch that went wrong, and a
                         copy of the store where the passage encoder moves
      own/               see `belongings`
      privacy.json       see `privacy.ledger`
      model/             the model of the last final weights, with what is personal

A round is a pass of `consilience train`: the same session, the same loop. What is different is that
every round begins from weights that came, with a fresh optimiser, and ends in a change. Its shuffle
and its dropout are drawn from the seed of the federation, the round and the party's name; the first
party's first round has the seed itself, so that a party alone learns in its first round what
`consilience train` with that seed learns in as many steps.

What is told to others of an `Update`, the trainee does not know.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import torch
from torch import Tensor
from transformers import TrainerCallback

from consilience.errors import UsageError
from consilience.federation.belongings import Belongings
from consilience.federation.config import FederationConfig, PartyConfig
from consilience.federation.contracts import Orders, Update, Weights
from consilience.federation.drift import Proximal, Scaffold, plain_steps
from consilience.federation.durable import private_folder
from consilience.federation.making import made_questions
from consilience.federation.recipe import Own, save_whole, settings_of, tokenizer_fingerprint
from consilience.federation.travelling import (
    CONTROL,
    Travelling,
    controls_in,
    put,
    with_controls,
    without_controls,
)
from consilience.questions import read_questions, write_questions
from consilience.store import Store
from consilience.training.config import DataSettings
from consilience.training.opening import forget_copy, opened_store
from consilience.training.optimising import arguments
from consilience.training.run import refresh_of, watch_of
from consilience.training.session import Say, Session
from consilience.training.watching import JsonLog

PERSONAL = "personal/"
"""What names of personal weights begin with among a party's belongings."""


@dataclass(frozen=True, slots=True)
class _Learned:
    """What training came to.

    Attributes:
        metrics: `loss`, the mean over the steps, and what else may be told.
        weight: How many questions were trained on.
        epsilon: Spent until now; None without a budget.
        controls: Own control variates after it, of the weights that moved.
    """

    metrics: Mapping[str, float]
    weight: float
    epsilon: float | None = None
    controls: Mapping[str, Tensor] = field(default_factory=dict)


class RagTrainee:
    """Implements `Trainee` with a store and questions on this machine.

    Args:
        recipe: A config of `consilience train` as it was written.
        party: What the party brings.
        config: Of the federation.
        say: Told what is worth knowing to the party itself.

    Raises:
        UsageError: Mistakes in the recipe, an empty store, no question to learn from, names under
            `travel` that no weight has.
        MissingError: A store, a model or a question file is not there.
        FingerprintError: The store's vectors are another model's.
    """

    def __init__(
        self,
        recipe: Mapping[str, Any],
        party: PartyConfig,
        config: FederationConfig,
        *,
        say: Say = lambda _: None,
    ) -> None:
        self.party, self.config, self.say = party, config, say
        self._require_place()
        training = private_folder(party.state) / "training"
        own = Own(party.model, party.store, _data(party, config.seed), private_folder(training))
        self.settings = settings_of(recipe, config, own, source="the recipe of the federation")
        self._open = ExitStack()
        try:
            forget_copy(self.settings)
            self.session = self._session()
            self._require_private()
            rag = self.session.rag
            self.travelling = Travelling(rag.model, config.travel, seed=config.seed)
        except BaseException:
            self.close()
            raise
        self._described = self.travelling.fingerprint(), tokenizer_fingerprint(rag)
        self._personal = {name: one.clone() for name, one in self._personal_now().items()}
        self._belongings = Belongings(party.state / "own")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store. A closed trainee can be closed again, but not used."""
        self._open.close()

    def describe(self) -> tuple[str, str]:
        """Fingerprints of what neither travels nor is personal, and of the tokenizers."""
        return self._described

    def shared(self) -> dict[str, Tensor]:
        """The weights that travel as they are now, float32; with SCAFFOLD, control variates too."""
        found = self.travelling.read()
        return with_controls(found) if self.config.scaffold else found

    def fit(self, orders: Orders, weights: Weights) -> Update:
        """Train on the party's own questions, beginning from `weights`.

        Raises:
            SpentError: Its budget does not bear this round; nothing was trained or spent.
            UsageError: Weights of another model, weights asked for that do not travel, a loss or
                weights that are no numbers.
        """
        began = perf_counter()
        moving = tuple(name for name in orders.moving if not name.startswith(CONTROL))
        before = self._belongings.before(orders.run, orders.round)
        self._take(weights, before)
        measured = {f"eval_{name}": value for name, value in self._measured().items()}
        self._note(orders, measured)
        self.travelling.begin(moving, seed=f"{orders.seed}:{orders.round}:{self.party.name}")
        start = without_controls(weights)
        learned = self._learned(orders, moving, weights, before)
        delta = self.travelling.change(moving, start)
        _require_numbers(delta)
        delta |= _control_changes(learned.controls, before)
        self._keep_own(orders, before, learned.controls)
        return Update(
            delta=delta,
            weight=learned.weight,
            metrics={**learned.metrics, **({} if self._private else measured)},
            epsilon=learned.epsilon,
            seconds=perf_counter() - began,
        )

    def keep(self, weights: Weights) -> str:
        """Save the model of these and the personal weights under `state`; returns where.

        Where the passage encoder moves, the copy of the store under `state` gets its vectors.
        """
        self._take(weights, self._belongings.newest())
        place = save_whole(self.session.rag, self.party.state / "model")
        if self.session.moving and self.session.store is not None:
            self.session.publish()
        return place

    @property
    def _private(self) -> bool:
        """Whether nothing may be told of single questions; dev questions have no budget."""
        return self.config.privacy.epsilon is not None

    def _require_place(self) -> None:
        kept = self.party.state / "model"
        if self.party.model is not None and Path(self.party.model).resolve() == kept.resolve():
            raise UsageError(
                "the party's model is the folder that the new model is written to",
                hint="move it somewhere else, and name that under model",
            )

    def _require_private(self) -> None:
        """Refuse at once what cannot be private, not in the first round."""
        if self._private:
            from consilience.federation.privacy import require_private

            require_private(self.session.learner, self.session.all_examples, self.config.privacy)

    def _session(self) -> Session:
        data = self.settings.data
        sets = [read_questions(path) for path in data.train]
        dev = [question for path in data.dev for question in read_questions(path)]
        store = self._open.enter_context(opened_store(self.settings))
        return Session(self.settings, store, sets, dev, say=self.say)

    def _take(self, weights: Weights, own: Weights) -> None:
        """Put shared weights in, and personal ones: as they were kept, else as they began."""
        self.travelling.write(without_controls(weights))
        for name, weight in self.travelling.personal.items():
            put(weight, own.get(PERSONAL + name, self._personal[name]))
        self.session.follow()

    def _measured(self) -> dict[str, float]:
        measurement, learner = self.session.measurement, self.session.learner
        if measurement is None:
            return {}
        learner.eval()
        with torch.no_grad():
            return measurement()

    def _log(self, orders: Orders) -> Path:
        return self.settings.output / f"round-{orders.round}.jsonl"

    def _note(self, orders: Orders, measured: Mapping[str, float]) -> None:
        """Begin the round's log with what the weights that came are worth to the party."""
        line = json.dumps({"step": 0, **measured})
        self._log(orders).write_text(f"{line}\n", encoding="utf-8")

    def _learned(
        self, orders: Orders, moving: Sequence[str], weights: Weights, before: Weights
    ) -> _Learned:
        if self._private:
            return self._in_private(orders, moving)
        if self.config.scaffold:
            return self._with_controls(orders, moving, weights, before)
        proximal = self.config.proximal
        pull = Proximal(self.travelling, moving, weights, proximal) if proximal else None
        return self._trained(orders, pull=pull)

    def _with_controls(
        self, orders: Orders, moving: Sequence[str], weights: Weights, before: Weights
    ) -> _Learned:
        learning = self.travelling.learning(moving)
        kept, common = controls_in(before), controls_in(weights)
        if not learning.keys() <= common.keys():
            raise UsageError(
                "the coordinator sent no control variates, and scaffold is on",
                hint="run the same version everywhere",
            )
        own = {name: kept.get(name, torch.zeros_like(common[name])) for name in learning}
        scaffold = Scaffold(learning, common, own)
        optimiser = plain_steps(
            learning | self.travelling.personal,
            rate=self.settings.learning_rate,
            encoder_rate=self.settings.encoder_rate,
        )
        found = self._trained(orders, pull=scaffold, optimiser=optimiser, looking_on=[scaffold])
        return replace(found, controls=scaffold.controls())

    def _trained(
        self,
        orders: Orders,
        *,
        pull: Callable[[], Tensor] | None = None,
        optimiser: torch.optim.Optimizer | None = None,
        looking_on: Sequence[TrainerCallback] = (),
    ) -> _Learned:
        """A round of the loop over the party's questions."""
        session, settings = self.session, self.settings
        steps = self.config.steps or _steps_of_a_pass(session)
        round_ = replace(settings, steps=steps, seed=seed_of(orders, self.party.name))
        refresh, log = refresh_of(session), JsonLog(self._log(orders))
        trainer = session.trainer(
            arguments(round_, saves=False),
            optimiser=optimiser,
            pull=pull,
            callbacks=[log, watch_of(session, self.say), refresh, *looking_on],
        )
        with refresh:
            loss = trainer.once()
            refresh.finish()
        asked = steps * settings.batch * settings.accumulate
        return _Learned({"loss": loss}, float(min(asked, len(session.all_examples))))

    def _in_private(self, orders: Orders, moving: Sequence[str]) -> _Learned:
        """A round whose steps are clipped and noised, personal weights included.

        What is personal never leaves, but the changes that do are computed with it.
        """
        from consilience.federation.privacy import Ledger, PrivateRound, private_fit

        settings, config = self.settings, self.config
        found = private_fit(
            self.session.learner,
            self.session.all_examples,
            self.travelling.learning(moving) | self.travelling.personal,
            privacy=config.privacy,
            work=PrivateRound(
                run=orders.run,
                round=orders.round,
                rounds=config.rounds,
                rate=settings.learning_rate,
                batch=settings.batch * settings.accumulate,
                steps=config.steps,
                proximal=config.proximal,
            ),
            ledger=Ledger(self.party.state / "privacy.json", most=self.party.most_epsilon),
        )
        return _Learned(found.metrics, found.weight, found.epsilon)

    def _keep_own(self, orders: Orders, before: Weights, controls: Weights) -> None:
        personal = {PERSONAL + name: value for name, value in self._personal_now().items()}
        own = {CONTROL + name: value for name, value in controls.items()}
        if values := {**before, **personal, **own}:
            self._belongings.keep(orders.run, orders.round, values)

    def _personal_now(self) -> dict[str, Tensor]:
        found = self.travelling.personal.items()
        return {name: weight.detach().float().cpu() for name, weight in found}


def seed_of(orders: Orders, party: str) -> int:
    """The seed of a party's round: the federation's own for the first party's first round."""
    if orders.round == 1 and orders.parties[:1] == (party,):
        return orders.seed
    told = f"{orders.seed}:{orders.round}:{party}"
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:4], "big")


def _data(party: PartyConfig, seed: int) -> DataSettings:
    """The party's questions; made from its store where it names none."""
    if party.data.train:
        return party.data
    if party.store is None:
        raise UsageError(
            "the party has neither questions nor a knowledge base",
            hint="set data.train, or store, in the party's file",
        )
    place = party.state / "questions.jsonl"
    with Store.open(party.store, create=False) as store:
        write_questions(place, made_questions(store, count=party.made, seed=seed))
    return replace(party.data, train=(place,))


def _steps_of_a_pass(session: Session) -> int:
    config = session.config
    batches = math.ceil(len(session.all_examples) / config.batch)
    return math.ceil(batches / config.accumulate)


def _control_changes(controls: Weights, before: Weights) -> dict[str, Tensor]:
    """How far the party's control variates moved, under the names that travel."""
    kept = controls_in(before)
    return {
        CONTROL + name: value - kept[name] if name in kept else value
        for name, value in controls.items()
    }


def _require_numbers(delta: Weights) -> None:
    """Refuse to hand on what a last step blew up."""
    if not all(bool(value.isfinite().all()) for value in delta.values()):
        raise UsageError(
            "the weights are no numbers after this round",
            hint="lower learning_rate in the recipe, or clip gradients with clip",
        )
