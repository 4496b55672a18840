"""A student and its teacher: what is cut, what is taught, and that it is learned."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience.documents import Document
from consilience.encoding.folder import open_folder
from consilience.errors import FingerprintError, UsageError
from consilience.model import Rag
from consilience.questions import Question
from consilience.store import Store
from consilience.training.config import DistilSettings
from consilience.training.examples import Example
from consilience.training.learner import Learner
from consilience.training.proposals import PassageIndex
from consilience.training.run import train
from consilience.training.student import cut_student, kept_layers, principal_directions
from consilience.training.teaching import Teacher, answered_by, opened_teacher
from consilience.training.work import LearnerOptions, Work
from tests.tiny import write_tiny_model
from tests.training.small import config_of, write_world

BOTH = ["question_encoder", "passage_encoder", "generator", "temperature"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


def distilling(world: dict[str, Path], output: Path, **values: Any) -> Any:
    distil = {"teacher": str(world["model"]), **values.pop("distil", {})}
    settings = {"objectives": {"distil": 1.0}, "distil": distil, **values}
    if "model" not in settings:
        settings["model"] = None
    return config_of(world, output, **settings)


def weights(rag: Rag) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in rag.model.named_parameters()}


@pytest.mark.parametrize(
    ("had", "wanted", "kept"),
    [(6, 6, [0, 1, 2, 3, 4, 5]), (6, 3, [1, 3, 5]), (6, 1, [5]), (3, 2, [0, 2]), (1, 1, [0])],
)
def test_layers_stay_at_even_distances_and_the_last_always(
    had: int, wanted: int, kept: list[int]
) -> None:
    assert kept_layers(had, wanted) == kept


def test_a_student_of_the_teachers_size_is_the_teacher(tmp_path: Path) -> None:
    teacher = Rag.load(write_tiny_model(tmp_path / "teacher"))
    place = cut_student(teacher, DistilSettings("x", 2, 2, 16), tmp_path / "student")
    own, wanted = open_folder(place).tensors(), open_folder(tmp_path / "teacher").tensors()
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[name].float(), wanted[name].float()) for name in own)


def test_fewer_layers_are_layers_of_the_teacher(tmp_path: Path) -> None:
    teacher = Rag.load(write_tiny_model(tmp_path / "teacher"))
    place = cut_student(teacher, DistilSettings("x", 1, 1), tmp_path / "student")
    own, wanted = open_folder(place).tensors(), open_folder(tmp_path / "teacher").tensors()
    for stack in ("reader", "retriever", "decoder"):
        name = f"{stack}.layer.0.attention.self.query.weight"
        assert torch.equal(own[name].float(), wanted[name.replace(".0.", ".1.")].float())
    assert not any(".layer.1." in name for name in own)


def test_a_narrow_student_loads_and_keeps_the_directions_of_most_variance(tmp_path: Path) -> None:
    teacher = Rag.load(write_tiny_model(tmp_path / "teacher"))
    place = cut_student(teacher, DistilSettings("x", hidden_size=8), tmp_path / "student")
    student = Rag.load(place)
    assert (open_folder(place).config.heads, student.encoder.dimension) == (1, 8)  # type: ignore[union-attr]
    wide = open_folder(tmp_path / "teacher").tensors()["embeddings.word_embeddings.weight"].float()
    narrow = open_folder(place).tensors()["embeddings.word_embeddings.weight"].float()
    basis = principal_directions(wide, 8)
    assert torch.allclose(basis.T @ basis, torch.eye(8), atol=1e-5)
    assert torch.allclose(narrow, wide @ basis, atol=0.02)
    kept = (wide - wide.mean(0)) @ basis
    assert float(kept.var(0).sum()) > 0.5 * float(wide.var(0).sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_layers": 3}, "distil.encoder_layers is 3, and the teacher has 2"),
        ({"hidden_size": 32}, "distil.hidden_size is 32, and the teacher has 16"),
        ({"hidden_size": 12}, "distil.hidden_size is 12, and the teacher's heads have 8"),
    ],
)
def test_sizes_that_cannot_be_cut_are_refused(
    tmp_path: Path, settings: dict[str, int], message: str
) -> None:
    teacher = Rag.load(write_tiny_model(tmp_path / "teacher"))
    with pytest.raises(UsageError, match=message):
        cut_student(teacher, DistilSettings("x", **settings), tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_everything_that_does_not_fit_is_told_at_once(
    world: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        config_of(
            world,
            tmp_path / "run",
            objectives={"distil": 1.0},
            distil={"encoder_layers": 1},
        )
    assert "objectives distil learn from a teacher, but distil.teacher is none" in str(error.value)
    assert "asks for a student or answers of a teacher" in str(error.value)
    assert "model names a student and distil asks to cut one" in str(error.value)
    with pytest.raises(UsageError, match=r"distil\.teacher teaches nothing"):
        distilling(world, tmp_path / "run", objectives={"sequence": 1.0})


def learner_with(
    world: dict[str, Path], teacher: Teacher, student: Path, **objectives: float
) -> Learner:
    rag = Rag.load(student)
    options = LearnerOptions(objectives=objectives, k=3, moving=True)  # type: ignore[arg-type]
    index = PassageIndex(teacher.store)
    return Learner(
        rag.model.float(),
        rag.encoder,  # type: ignore[arg-type]
        index=index,
        options=options,
        teacher=teacher.learner(options),
    )


def test_a_teacher_tells_itself_nothing_new(world: dict[str, Path], tmp_path: Path) -> None:
    config = distilling(world, tmp_path / "run")
    batch = [Example("what is the fee", "3", ("3",)), Example("what is the bus", "2", ("2",))]
    objectives = {"distil": 1.0, "distil_posterior": 1.0, "distil_states": 1.0}
    with opened_teacher(config) as teacher:
        assert teacher is not None
        same = learner_with(world, teacher, world["model"], **objectives)
        parts = same.eval()(batch)["parts"]
        assert abs(parts["distil"]) < 1e-5
        assert abs(parts["distil_states"]) < 1e-5
        # The prior knows the question alone, the posterior the answer too.
        assert parts["distil_posterior"] > 0
        other = write_tiny_model(tmp_path / "other", seed=9)
        told = learner_with(world, teacher, other, **objectives).eval()(batch)["parts"]
        assert told["distil"] > 0.01
        assert told["distil_states"] > 0.01


def test_the_sum_over_words_agrees_with_the_likelihood_of_the_answer(
    world: dict[str, Path], tmp_path: Path
) -> None:
    batch = [Example("what is the fee", "3", ("3",)), Example("what is the bus", "22", ("22",))]
    with opened_teacher(distilling(world, tmp_path / "run")) as teacher:
        assert teacher is not None
        learner = learner_with(world, teacher, world["model"], distil=1.0, sequence=1.0).eval()
        work = Work(learner, batch)
        chosen = work.targets.masked_fill(~work.mask, 0)[..., None]
        answers = (work.summed_words.gather(-1, chosen)[..., 0] * work.mask).sum(-1)
        assert torch.allclose(-answers.mean(), learner(batch)["loss"] - told(learner, batch))
        assert torch.allclose(work.summed_words.exp().sum(-1), torch.ones(1), atol=1e-4)
        assert torch.allclose(work.posterior.sum(-1), torch.ones(2), atol=1e-5)


def told(learner: Learner, batch: list[Example]) -> float:
    return float(learner(batch)["parts"]["distil"])


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        ("distil", {"reader", "decoder", "retriever", "embeddings"}),
        ("distil_posterior", {"retriever", "embeddings"}),
        ("distil_states", {"reader", "embeddings"}),
    ],
)
def test_each_objective_moves_what_it_teaches(
    world: dict[str, Path], tmp_path: Path, objective: str, parts: set[str]
) -> None:
    run = distilling(
        world,
        tmp_path / "run",
        objectives={objective: 1.0},
        distil={"encoder_layers": 1, "hidden_size": 8},
        train=BOTH,
        refresh={"mode": "synchronous", "every": 4},
    )
    done = train(run)
    before = open_folder(tmp_path / "run/start").tensors()
    after = open_folder(done.output / "model").tensors()
    moved = {n.split(".")[0] for n in after if not torch.equal(after[n].float(), before[n].float())}
    assert moved == parts
    with Store.open(tmp_path / "run/knowledge", create=False) as store:
        assert store.dimension == 8
    with Store.open(world["store"], create=False) as store:
        assert store.dimension == 16


def test_a_student_comes_to_say_what_its_teacher_says(
    world: dict[str, Path], tmp_path: Path
) -> None:
    run = distilling(
        world,
        tmp_path / "run",
        distil={"encoder_layers": 1, "decoder_layers": 1},
        train=BOTH,
        refresh={"mode": "synchronous", "every": 100},
        steps=60,
        learning_rate=1e-2,
    )
    train(run)
    lines = (tmp_path / "run/log.jsonl").read_text("utf-8").splitlines()
    losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])


def test_a_student_goes_on_bit_for_bit(world: dict[str, Path], tmp_path: Path) -> None:
    def run(output: Path, steps: int) -> Any:
        return distilling(
            world,
            output,
            objectives={"distil": 1.0, "distil_states": 0.5},
            distil={"hidden_size": 8, "answers": "teacher"},
            train=BOTH,
            refresh={"mode": "synchronous", "every": 2},
            steps=steps,
        )

    train(run(tmp_path / "whole", 6))
    train(run(tmp_path / "parts", 4))
    done = train(run(tmp_path / "parts", 6))
    assert done.resumed_from is not None
    whole, parts = (open_folder(tmp_path / n / "model").tensors() for n in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_answers_of_the_teacher_take_the_place_of_those_of_the_data(
    world: dict[str, Path], tmp_path: Path
) -> None:
    asked = [Question("what is the fee", ("nonsense",)), Question("what is the bus")]
    with opened_teacher(distilling(world, tmp_path / "run")) as teacher:
        assert teacher is not None
        said = [teacher.rag.ask(one.question, teacher.store).text for one in asked]
        place = tmp_path / "answers.jsonl"
        found = answered_by(teacher, asked, place, k=5)
        assert [one.answers for one in found] == [(text,) if text else () for text in said]
        assert [one.unanswerable for one in found] == [not text for text in said]
        # Kept answers are not asked for again, and a line that was cut off is.
        lines = place.read_text("utf-8").splitlines(keepends=True)
        place.write_text(lines[0].replace(said[0], "kept") + lines[1][:-3], "utf-8")
        again = answered_by(teacher, asked, place, k=5)
        assert again[0].answers == ("kept",)
        assert again[1] == found[1]


def test_vectors_of_another_encoder_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(FingerprintError):
        train(distilling(world, tmp_path / "a", distil={"teacher": str(other)}))
    with pytest.raises(FingerprintError):
        train(distilling(world, tmp_path / "b", model=str(other), train=["generator"]))


def test_a_store_that_changed_in_the_middle_is_noticed(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    settings: dict[str, Any] = {
        "distil": {"hidden_size": 8},
        "train": BOTH,
        "refresh": {"mode": "synchronous", "every": 4},
    }
    train(distilling(world, tmp_path / "run", steps=2, **settings))
    teacher = Rag.load(world["model"])
    with Store.open(world["store"], encoder=teacher.encoder) as store:
        store.add(Document("the pen is 4", source="pen.txt"))
    with pytest.raises(UsageError, match="the store has changed since this run began"):
        train(distilling(world, tmp_path / "run", steps=4, **settings))
