import json
from pathlib import Path

import pytest
import torch
from torch import nn

from consilience.encoding.folder import open_folder, write_folder
from consilience.errors import UsageError
from consilience.generation import Pair
from consilience.model import Rag
from consilience.model.loading import tensors_of
from consilience.model.precision import Precision, set_precision
from consilience.training.config import DataSettings, TrainConfig
from consilience.training.run import train
from tests.compat.tiny_rag import write_checkpoint
from tests.tiny import tiny_config, tiny_tensors, tiny_tokenizer

PAIRS = [Pair("what is the fee", "fees", "the fee is 9"), Pair("门诊时间", "", "时间是上午。")]
TARGETS = torch.tensor([[7, 8, 9, 2], [9, 8, 7, 2]])


def scores(rag: Rag) -> torch.Tensor:
    generator = rag.model.generator
    return generator.score(generator.read(PAIRS), TARGETS)


def test_eight_bits_say_nearly_the_same_with_a_quarter_of_the_weights(
    tiny_model_folder: Path,
) -> None:
    rag = Rag.load(tiny_model_folder)
    exact = scores(rag)
    set_precision(rag.model, "int8")
    torch.testing.assert_close(scores(rag), exact, atol=0.5, rtol=0.05)
    assert not torch.equal(scores(rag), exact)
    left = [m for m in rag.model.generator.modules() if type(m) is nn.Linear]
    assert left == []


def test_the_vocabulary_keeps_its_numbers(tmp_path: Path) -> None:
    rag = Rag.load(write_checkpoint(tmp_path / "checkpoint"))
    set_precision(rag.model, "int8")
    modules = rag.model.generator.named_modules()
    assert [name for name, one in modules if type(one) is nn.Linear] == ["model.lm_head"]


def test_the_retriever_keeps_its_numbers(tiny_model_folder: Path) -> None:
    rag = Rag.load(tiny_model_folder)
    assert rag.encoder is not None
    before = rag.encoder.encode_questions(["what"])
    set_precision(rag.model, "int8")
    assert (rag.encoder.encode_questions(["what"]) == before).all()


def test_other_precisions_are_those_of_torch(tiny_model_folder: Path) -> None:
    rag = Rag.load(tiny_model_folder)
    set_precision(rag.model, "bfloat16")
    assert {weight.dtype for weight in rag.model.parameters()} == {torch.bfloat16}
    set_precision(rag.model, "float32")
    assert {weight.dtype for weight in rag.model.parameters()} == {torch.float32}


def test_an_unknown_precision_lists_those_there_are(tiny_model_folder: Path) -> None:
    rag = Rag.load(tiny_model_folder)
    with pytest.raises(UsageError, match="unknown precision 'int3'") as caught:
        set_precision(rag.model, "int3")  # type: ignore[arg-type]
    assert caught.value.hint == "choose one of: float32, bfloat16, float16, int8"


@pytest.fixture
def halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bfloat16."""
    for room in ("encoding", "generation"):
        monkeypatch.setattr(f"consilience.{room}.compact.fastest_dtype", lambda: torch.bfloat16)


def unrounded(path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder whose weights are not what bfloat16 can hold, and these."""
    words = tiny_tokenizer()
    config = tiny_config(words)
    tensors = {name: 1.001 * value.float() for name, value in tiny_tensors(config).items()}
    write_folder(path, config, tensors, words.to_json())
    return path, tensors


@pytest.mark.usefixtures("halving")
@pytest.mark.parametrize("precision", [None, "float32"])
def test_what_learns_begins_with_the_weights_as_they_are_stored(
    tmp_path: Path, precision: Precision | None
) -> None:
    folder, stored = unrounded(tmp_path / "model")
    rag = Rag.load(folder, precision=precision)
    found = dict(tensors_of(rag.parts))
    same = [name for name, value in stored.items() if torch.equal(found[name].float(), value)]
    assert (len(same) > len(stored) - 2) is (precision == "float32")
    assert {value.dtype for value in found.values()} <= {
        torch.float32 if precision else torch.bfloat16,
        torch.float32,
    }


@pytest.mark.usefixtures("halving")
def test_training_rounds_nothing_that_it_leaves_alone(tmp_path: Path) -> None:
    folder, stored = unrounded(tmp_path / "model")
    data = tmp_path / "train.jsonl"
    line = {"question": "what is the fee", "answers": ["nine"], "context": "the fee is nine"}
    data.write_text(json.dumps(line) + "\n", "utf-8")
    config = TrainConfig(
        output=tmp_path / "run",
        data=DataSettings(train=(data,)),
        model=str(folder),
        objectives={"reader": 1.0},
        train=("generator",),
        steps=1,
        report_to=(),
    )
    after = open_folder(train(config).output / "model").tensors()
    left = [name for name in stored if name.startswith("retriever.")]
    assert left
    assert all(torch.equal(after[name].float(), stored[name]) for name in left)
