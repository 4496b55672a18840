"""A teacher's ranking through `consilience train`: asked once, kept, and learned."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from consilience.cli.main import run
from consilience.errors import UsageError
from consilience.model.rag import Rag
from consilience.questions import Context
from consilience.retrieval.sentence_models import CrossEncoded
from consilience.training.examples import Example
from consilience.training.learner import Learner
from consilience.training.preparing import prepare
from consilience.training.ranking import FILE, Judge, judge_of, taught
from consilience.training.run import train
from consilience.training.work import LearnerOptions
from tests.retrieval.sentence_models import write_cross_encoder, write_multi_vector
from tests.tiny import write_tiny_model
from tests.training.rankers import (
    cosine_of_counts,
    write_counting_model,
    write_counting_vectors,
)
from tests.training.small import THINGS, config_of, number_of, train_until, write_world
from tests.training.test_run import moved, same_run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("cross"))


@pytest.fixture(scope="module")
def models(cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that teach, by the kind that `ranking.teacher` names."""
    vectors = write_multi_vector(tmp_path_factory.mktemp("vectors"))
    return {"cross-encoder": cross_encoder, "multi-vector": vectors}


def taught_by(teacher: str, objective: str, **values: Any) -> dict[str, Any]:
    return {
        "objectives": {objective: 1},
        "ranking": {"teacher": teacher, "temperature": 0.5},
        "temperature": 0.2,
        "train": ["question_encoder"],
        **values,
    }


def with_negatives(world: dict[str, Path], **data: Any) -> dict[str, Any]:
    return {"data": {"train": [str(world["data"])], "negatives": 3, **data}}


def losses(output: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (output / "log.jsonl").open(encoding="utf-8")]
    return [line[f"loss_{name}"] for line in lines if f"loss_{name}" in line]


@pytest.mark.parametrize("objective", ["margin_mse", "kl"])
@pytest.mark.parametrize(
    "teacher", ["cross-encoder", "multi-vector", "maxsim", "prior", "generator"]
)
def test_the_retriever_learns_the_ranking_and_nothing_else_moves(
    world: dict[str, Path],
    models: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    teacher: str,
    objective: str,
) -> None:
    name = f"{teacher}:{models[teacher]}" if teacher in models else teacher
    values = taught_by(name, objective, steps=48, **with_negatives(world))
    values |= {"output": str(tmp_path / "run"), "model": str(world["model"])}
    values |= {"store": str(world["store"]), "warmup": 0, "schedule": "constant"}
    values |= {"learning_rate": 1e-2, "report_to": [], "log_every": 1}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert run(["train", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 48
    found = losses(tmp_path / "run", objective)
    # Four batches are all questions once; a teacher of random weights is not learned to the end.
    assert sum(found[-4:]) < {"margin_mse": 0.6, "kl": 0.8}[objective] * sum(found[:4])
    assert moved(world, tmp_path / "run") == {"questions"}


def test_scores_are_asked_once_and_a_run_goes_on_bit_for_bit(
    world: dict[str, Path],
    cross_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    real_score = CrossEncoded.score

    def counting(self: CrossEncoded, question: str, passages: Any) -> Any:
        asked.append(question)
        return real_score(self, question, passages)

    monkeypatch.setattr(CrossEncoded, "score", counting)
    values = taught_by(f"cross-encoder:{cross_encoder}", "kl", **with_negatives(world))
    train(config_of(world, tmp_path / "whole", **values))
    assert len(asked) == 8  # each question stands four times in the file
    train_until(config_of(world, tmp_path / "parts", **values), 3)
    assert len(asked) == 16
    assert train(config_of(world, tmp_path / "parts", **values)).resumed_from is not None
    assert len(asked) == 16
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    kept = [(tmp_path / run / FILE).read_text("utf-8") for run in ("whole", "parts")]
    assert kept[0] == kept[1]


def test_another_teacher_is_refused_half_way(world: dict[str, Path], tmp_path: Path) -> None:
    teacher = write_cross_encoder(tmp_path / "cross")
    values = taught_by(f"cross-encoder:{teacher}", "kl", steps=2, **with_negatives(world))
    train(config_of(world, tmp_path / "run", **values))
    other = write_cross_encoder(tmp_path / "other", seed=1)
    for path in other.rglob("*.safetensors"):
        (teacher / path.relative_to(other)).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="keeps the scores of another teacher"):
        train(config_of(world, tmp_path / "run", **(values | {"steps": 4})))


def test_the_measured_questions_are_scored_too(world: dict[str, Path], tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    dev.write_text("".join(world["data"].read_text("utf-8").splitlines(keepends=True)[:1]))
    data = with_negatives(world, dev=[str(dev)])
    values = taught_by("generator", "margin_mse", steps=2, **data)
    found = train(config_of(world, tmp_path / "run", **values))
    assert found.metrics["eval_loss"] > 0


def test_questions_without_two_passages_have_nothing_to_rank(
    world: dict[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text('{"question": "zzz", "answers": ["1"]}\n')
    values = taught_by("generator", "kl") | {"data": {"train": [str(data)]}}
    with pytest.raises(UsageError, match="has two passages that a teacher could rank"):
        train(config_of(world, tmp_path / "run", **values))


def example(*texts: str) -> Example:
    passages = [Context(text, "", text) for text in texts]
    return Example("q", "a", passage=passages[0], negatives=tuple(passages[1:]))


class TestKeptScores:
    def test_a_line_that_was_cut_off_is_asked_again(self, tmp_path: Path) -> None:
        judge = Judge("same", lambda one: [float(len(p.text)) for p in one.candidates])
        some = [example("a", "bb"), example("ccc", "d"), example("alone")]
        found = taught(some, judge, tmp_path)
        assert [one.taught for one in found] == [(1.0, 2.0), (3.0, 1.0), ()]
        place = tmp_path / FILE
        place.write_text(place.read_text("utf-8")[:-5], encoding="utf-8")
        asked: list[Example] = []
        again = Judge("same", lambda one: asked.append(one) or judge.score(one))  # type: ignore[func-returns-value]
        assert taught(some, again, tmp_path) == found
        assert asked == [some[1]]

    def test_other_passages_are_asked_for(self, tmp_path: Path) -> None:
        judge = Judge("same", lambda one: [float(len(p.text)) for p in one.candidates])
        taught([example("a", "bb")], judge, tmp_path)
        (found,) = taught([example("a", "bbbb")], judge, tmp_path)
        assert found.taught == (1.0, 4.0)

    def test_several_processes_do_not_write_one_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = Judge("same", lambda _: [0.0, 1.0])
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UsageError, match="several processes cannot share"):
            taught([example("a", "b")], judge, tmp_path)
        monkeypatch.delenv("WORLD_SIZE")
        found = taught([example("a", "b")], judge, tmp_path)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert taught([example("a", "b")], judge, tmp_path) == found


def test_the_generator_prefers_the_passage_that_makes_the_answer_likely(
    world: dict[str, Path], tmp_path: Path
) -> None:
    rag = Rag.load(world["model"])
    prepare(rag, config_of(world, tmp_path / "run", train=["question_encoder"]))
    learner = learner_of(rag)
    asked = Example(
        "what is the fee",
        "3",
        passage=Context("a", "", "the fee is 3"),
        negatives=(Context("b", "", "the bank"), Context("c", "", "33333")),
    )
    judge = judge_of("generator", learner, rag)
    scores = judge.score(asked)
    with torch.no_grad():
        generator, targets = rag.model.generator, []
        for one in asked.candidates:
            from consilience.generation import Pair

            memory = generator.memorise(generator.rows([Pair(asked.question, "", one.text)]))
            ids = torch.tensor([generator.answer_ids("3")])
            targets.append(float(generator.target_log_probs(memory, ids).sum()))
    raw = torch.tensor(targets)
    expected = (raw - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(torch.tensor(scores), expected, atol=1e-4, rtol=1e-4)
    assert judge_of("generator", learner, rag).digest == judge.digest
    with torch.no_grad():
        next(rag.model.generator.parameters()).add_(1.0)
    assert judge_of("generator", learner, rag).digest != judge.digest


ASKED = "what is the visit hours"
SHORT = "visit visit"
LONG = "the visit hours of the ward and the fee of the bank card exam"
TITLED = ("visit hours", "of the exam")


def as_told(*passages: tuple[str, str], question: str = ASKED) -> Example:
    """A question with passages, of which the first is the right one for the data."""
    found = [Context(f"{title}/{text}", title, text) for title, text in passages]
    return Example(question, "3", passage=found[0], negatives=tuple(found[1:]))


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Rag:
    return Rag.load(write_counting_model(tmp_path_factory.mktemp("counting") / "model"))


def learner_of(rag: Rag) -> Learner:
    return Learner(rag.model, None, index=None, options=LearnerOptions({"kl": 1}))


def judged(name: str, rag: Rag, example: Example) -> list[float]:
    return judge_of(name, learner_of(rag), rag).score(example)


def standard(raw: list[float]) -> Any:
    found = torch.tensor(raw)
    return pytest.approx(((found - found.mean()) / found.std(correction=0)).tolist(), abs=1e-2)


class TestKnownOrders:
    """Teachers over models that count words, so that their ranking is known without them."""

    passages = (("", "the fee"), ("", SHORT), ("", LONG), TITLED)

    def test_the_prior_is_the_cosine_of_whole_texts(self, counting: Rag) -> None:
        found = judged("prior", counting, as_told(*self.passages))
        texts = [" ".join(one) for one in self.passages]
        assert found == standard([cosine_of_counts(ASKED, text) for text in texts])
        assert found[3] > found[1] > found[2] > found[0]

    def test_token_vectors_ask_for_every_word_of_the_question(self, counting: Rag) -> None:
        found = judged("maxsim", counting, as_told(*self.passages))
        # The share of "visit hours" that each passage holds, and nothing of how long it is.
        assert found == standard([0.0, 0.5, 1.0, 1.0])

    def test_an_encoder_of_many_vectors_asks_for_every_word(
        self, counting: Rag, tmp_path: Path
    ) -> None:
        name = f"multi-vector:{write_counting_vectors(tmp_path)}"
        told = (("", "the bank"), ("", "salmon salmon"), ("river", "and fee and salmon"))
        asked = as_told(*told, question="what is the fee salmon river")
        assert judged(name, counting, asked) == standard([0.0, 1.0, 3.0])

    @pytest.mark.parametrize("name", ["maxsim", "prior"])
    def test_another_encoder_is_another_teacher(
        self, counting: Rag, tmp_path: Path, name: str
    ) -> None:
        asked = [as_told(*self.passages)]
        first = taught(asked, judge_of(name, learner_of(counting), counting), tmp_path)
        again = Judge(judge_of(name, learner_of(counting), counting).digest, pytest.fail)
        assert taught(asked, again, tmp_path) == first
        other = Rag.load(write_tiny_model(tmp_path / "other", seed=5))
        with pytest.raises(UsageError, match="keeps the scores of another teacher"):
            taught(asked, judge_of(name, learner_of(other), other), tmp_path)

    def test_teachers_made_of_one_model_are_told_apart(self, counting: Rag) -> None:
        names = ("maxsim", "prior", "generator")
        assert len({judge_of(name, learner_of(counting), counting).digest for name in names}) == 3


@pytest.mark.parametrize("objective", ["margin_mse", "kl"])
def test_the_student_ends_with_the_order_of_a_teacher_that_contradicts_the_data(
    tmp_path: Path, objective: str
) -> None:
    world = write_world(tmp_path, things=3)
    lines = [json.loads(line) for line in world["data"].open(encoding="utf-8")][::4]
    for line, other in zip(lines, lines[1:] + lines[:1], strict=True):
        line["positive_ids"], line["answers"] = other["positive_ids"], other["answers"]
    world["data"].write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    teacher = f"multi-vector:{write_counting_vectors(tmp_path / 'vectors')}"
    values = taught_by(teacher, objective, steps=80, **with_negatives(world))
    config = config_of(world, tmp_path / "run", **values, learning_rate=1e-2, batch=3)
    train(config)
    encoder = Rag.load(tmp_path / "run" / "model").encoder
    assert encoder is not None
    asked = encoder.encode_questions([f"what is the {thing}" for thing in THINGS[:3]])
    told = encoder.encode_passages(
        [f"the {thing} is {number_of(place)}" for place, thing in enumerate(THINGS[:3])]
    )
    assert (asked @ told.T).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("teacher", ["maxsim", "prior"])
def test_a_run_goes_on_with_the_encoder_that_it_began_with_as_its_teacher(
    world: dict[str, Path], tmp_path: Path, teacher: str
) -> None:
    both = ["question_encoder", "passage_encoder"]
    values = taught_by(teacher, "kl", **with_negatives(world), train=both)
    train(config_of(world, tmp_path / "whole", **values))
    train_until(config_of(world, tmp_path / "parts", **values), 3)
    assert train(config_of(world, tmp_path / "parts", **values)).resumed_from is not None
    assert same_run(tmp_path / "whole", tmp_path / "parts")
    kept = [(tmp_path / run / FILE).read_bytes() for run in ("whole", "parts")]
    assert kept[0] == kept[1]
