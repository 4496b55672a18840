"""The passage that is known to hold an answer, among what was found for the question."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience import Rag, Store
from consilience.errors import UsageError
from consilience.questions import Context, Question, read_questions
from consilience.training.examples import Example
from consilience.training.proposals import with_positives
from consilience.training.session import Session
from consilience.training.work import Work
from tests.training.small import config_of, write_world

JOINT = ("sequence", "token", "emdr2", "perplexity", "leave_one_out", "fid", "concat", "average")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def store(world: dict[str, Path]) -> Iterator[Store]:
    with Store.open(world["store"], encoder=Rag.load(world["model"]).encoder) as opened:
        yield opened


def session_of(
    world: dict[str, Path],
    store: Store,
    output: Path,
    *,
    questions: list[Question] | None = None,
    **values: Any,
) -> Session:
    values = {"k": 2, "add_positive": True, **values}
    asked = read_questions(world["data"]) if questions is None else questions
    return Session(config_of(world, output, **values), store, [asked], [])


def places(session: Session) -> tuple[list[list[int]], list[int]]:
    """What every question sums over while it learns, and where its right passage lies."""
    assert session.index is not None
    (right,) = zip(*map(session.index.right, session.all_examples), strict=True)
    return Work(session.learner, session.all_examples).proposals.places.tolist(), list(right)


@pytest.mark.parametrize(
    ("found", "right", "after"),
    [
        ([4, 2, 1], [2], [4, 2, 1]),
        ([4, 2, 1], [7], [4, 2, 7]),
        ([4, 2, 1], [7, 8], [4, 2, 7]),
        ([4, 2, 1], [7, 4], [4, 2, 1]),
        ([4, 2, 1], [], [4, 2, 1]),
        ([4, -1, -1], [7], [4, 7, -1]),
        ([-1, -1, -1], [7], [7, -1, -1]),
        ([4], [7], [7]),
    ],
)
def test_the_best_known_positive_takes_an_empty_place_or_the_last(
    found: list[int], right: list[int], after: list[int]
) -> None:
    given = torch.tensor([found])
    assert with_positives(given, [right]).tolist() == [after]
    assert given.tolist() == [found], "what was found stays as it was"


def test_a_question_sums_over_its_positive_and_over_what_was_found(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    read, right = places(session_of(world, store, tmp_path / "with"))
    found, _ = places(session_of(world, store, tmp_path / "without", add_positive=False))
    assert all(one in each for one, each in zip(right, read, strict=True))
    missed = [one not in each for one, each in zip(right, found, strict=True)]
    assert any(missed), "a model that finds everything shows nothing"
    assert not all(missed)
    for miss, ours, theirs in zip(missed, read, found, strict=True):
        assert ours[:1] == theirs[:1]
        assert (ours != theirs) == miss


def test_vectors_and_scores_are_those_of_the_passage_that_was_added(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    session = session_of(world, store, tmp_path)
    assert session.index is not None
    work = Work(session.learner, session.all_examples)
    expected = session.index.vectors[work.proposals.places]
    assert torch.equal(work.proposals.vectors, expected)
    own = (work.question_vectors[:, None] * expected).sum(-1)
    torch.testing.assert_close(work.scores, own)


def test_what_is_measured_is_what_was_found(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    session = session_of(world, store, tmp_path)
    session.learner.eval()
    read, right = places(session)
    assert any(one not in each for one, each in zip(right, read, strict=True))


def test_the_watch_over_collapse_sees_what_was_found(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    session = session_of(world, store, tmp_path)
    work = Work(session.learner, session.all_examples)
    assert work.scores.shape == (32, 2)
    seen = work.retrieved()
    found, _ = places(session_of(world, store, tmp_path / "without", add_positive=False))
    assert seen is not None
    assert set(seen.counts) == {str(place) for each in found for place in each}


@pytest.mark.parametrize("objective", JOINT)
def test_every_objective_over_passages_learns_with_it(
    world: dict[str, Path], store: Store, tmp_path: Path, objective: str
) -> None:
    session = session_of(world, store, tmp_path, objectives={objective: 1})
    loss = session.learner(session.all_examples[:4])["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    moved = [w.grad for w in session.learner.parameters() if w.grad is not None]
    assert any(bool(one.abs().sum() > 0) for one in moved)


def test_the_posterior_of_the_right_passage_pulls_its_prior(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    """Where only the right passage makes the answer likely, its score is what is pushed up."""
    session = session_of(world, store, tmp_path)
    work = Work(session.learner, session.all_examples[:8])
    scores = work.scores.detach().requires_grad_(True)
    work.__dict__["scores"] = scores
    right = session.all_examples[:8]
    assert session.index is not None
    known = torch.tensor([session.index.right(one)[0] for one in right])
    is_right = work.proposals.places == known[:, None]
    work.__dict__["log_probs"] = torch.where(is_right, -0.1, -5.0)[..., None].expand(
        -1, -1, work.targets.shape[1]
    )
    from consilience.training.aims import OBJECTIVES

    OBJECTIVES["sequence"](work).backward()
    assert scores.grad is not None
    assert bool((scores.grad[is_right] < 0).all())


def test_a_teacher_proposes_it_too(world: dict[str, Path], store: Store, tmp_path: Path) -> None:
    from consilience.training.teaching import opened_teacher

    values: dict[str, Any] = {
        "objectives": {"distil_posterior": 1},
        "distil": {"teacher": str(world["model"])},
        "k": 2,
        "add_positive": True,
    }
    config = config_of(world, tmp_path / "student", **values)
    with opened_teacher(config) as teacher:
        session = Session(config, store, [read_questions(world["data"])], [], teacher=teacher)
        work = Work(session.learner, session.all_examples)
        assert work.teacher is not None
        assert work.teacher.proposals.places.tolist() == work.proposals.places.tolist()
        read, right = places(session)
        assert all(one in each for one, each in zip(right, read, strict=True))


def test_other_names_count_as_right(world: dict[str, Path], store: Store, tmp_path: Path) -> None:
    """A question whose own context is not in the store, but whose named passage is."""
    index = session_of(world, store, tmp_path).index
    assert index is not None
    example = Example(
        "what is the fee",
        "3",
        passage=Context("context-9", "", "elsewhere"),
        positive_ids=("context-9", index.names[5], "nobody"),
    )
    assert index.right(example) == [5]
    assert index.right(replace(example, passage=None, positive_ids=())) == []


def test_a_store_that_holds_none_of_them_is_refused(
    world: dict[str, Path], store: Store, tmp_path: Path
) -> None:
    strange = [replace(one, positive_ids=()) for one in read_questions(world["data"])]
    with pytest.raises(UsageError, match="holds the passage of none of 32 questions"):
        session_of(world, store, tmp_path, questions=strange)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"objectives": {"reader": 1}}, "add_positive is on, but no objective sums over passages"),
        (
            {"objectives": {"average": 1}, "train": ["generator", "ranks"]},
            "ranks in train is learned from what search finds, but add_positive is on",
        ),
        (
            {"mode": "hybrid", "train": ["question_encoder", "hybrid_weights"]},
            "hybrid_weights in train is learned from what search finds, but add_positive is on",
        ),
    ],
)
def test_what_it_does_not_fit_is_told(
    world: dict[str, Path], tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        config_of(world, tmp_path, add_positive=True, **values)
    assert told in f"{refused.value.message} {refused.value.hint}"
