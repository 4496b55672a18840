from pathlib import Path

import pytest
import torch
from torch import nn

from consilience.errors import UsageError
from consilience.generation import Pair
from consilience.model import Rag
from consilience.model.precision import set_precision

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
