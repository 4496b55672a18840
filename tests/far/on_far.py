"""What gives the same on another device as on the processor; run by `tests/model/test_far.py`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience import Document, Rag, Store
from consilience.errors import UsageError
from consilience.generation import TokenRows, TrainableGenerator
from consilience.model import AskOptions, Piece, RagModel
from consilience.model.decoding import Decoded, DecodingOptions, decode
from consilience.model.fusion import SUMMED, Fusion
from consilience.model.precision import Precision
from consilience.retrieval import Refinement
from tests.compat.tiny_rag import QUESTIONS
from tests.far.device import NAME, moved, near, register
from tests.model.small import GENERATORS, some_rows
from tests.model.test_cohort import same
from tests.model.test_decoding import MODES, named
from tests.tiny import write_tiny_model
from tests.training.small import write_dpr_world

FAR = register()
SCORES = torch.tensor([[0.9, 0.3, 0.1], [0.2, 0.8, 0.4]])
DOCUMENTS = [
    Document("The fee of the card is 25.50. The bank is in the ward.", "card.txt", "Card"),
    Document("门诊的时间是上午9点。费用是100。", "门诊.txt", "门诊"),
    Document("Visit hours of the ward: 10 to 12. " * 5, "ward.txt", "Ward"),
]
ASKED = ["what is the fee of the card?", "门诊的时间？", "visit hours of the ward?"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def model_of(kind: str, device: torch.device | str) -> RagModel:
    """The same weights wherever they are."""
    torch.manual_seed(0)
    return RagModel(GENERATORS[kind](), temperature=0.5).eval().to(device)


def test_the_device_refuses_what_an_accelerator_refuses() -> None:
    far = torch.ones(3, device=FAR)
    with pytest.raises(RuntimeError, match="two devices"):
        far + torch.ones(3)
    with pytest.raises(TypeError, match="float64"):
        far.double()
    with pytest.raises(TypeError, match="numpy"):
        far.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device=FAR, generator=torch.Generator())
    assert far[torch.tensor([0, 2])].tolist() == [1.0, 1.0]
    assert (far + torch.tensor(1.0)).cpu().tolist() == [2.0, 2.0, 2.0]


# A decoder alone reads no passages side by side.
READERS = [(kind, fusion) for kind in sorted(GENERATORS) for fusion in [*sorted(SUMMED), "fid"]]
READERS.remove(("gpt2", "fid"))


@pytest.mark.parametrize(("kind", "fusion"), READERS)
def test_losses_and_gradients(kind: str, fusion: Fusion) -> None:
    found = []
    for device in (torch.device("cpu"), FAR):
        model = model_of(kind, device)
        inputs = {**some_rows(model.generator), "scores": SCORES.clone()}
        inputs = moved(inputs, device)
        inputs["scores"].requires_grad_()
        output = model(**inputs, fusion=fusion)
        output.loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((output, inputs["scores"].grad, gradients))
    (here, scores, gradients), (there, far_scores, far_gradients) = found
    torch.testing.assert_close(near(there.loss), here.loss)
    torch.testing.assert_close(near(there.log_likelihood), here.log_likelihood)
    assert far_gradients.keys() == gradients.keys()
    for name, value in far_gradients.items():
        torch.testing.assert_close(near(value), gradients[name], atol=1e-5, rtol=1e-4)
    if fusion in ("sequence", "token"):
        torch.testing.assert_close(near(far_scores), scores, atol=1e-5, rtol=1e-4)


def decoded(
    generator: TrainableGenerator, device: torch.device, options: DecodingOptions
) -> list[Any]:
    rows = moved(some_rows(generator), device)
    ids, mask = (rows[name].flatten(0, 1) for name in ("context_ids", "context_mask"))
    with torch.inference_mode():
        memory = generator.memorise(TokenRows(ids, mask))
        weights = SCORES.log_softmax(-1).to(device)
        return decode(generator, memory, weights, options=options)


# Two searches are of one fusion only, and these generators know no words to stop at.
ALL = [
    {"fusion": fusion, **mode}
    for mode in MODES
    for fusion in sorted(SUMMED)
    if "stop" not in mode and ("search" not in mode or fusion == "sequence")
]
WRITING = list({named(mode): mode for mode in ALL}.values())  # some name their fusion themselves


@pytest.mark.parametrize("mode", WRITING, ids=named)
@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_decoding(kind: str, mode: dict[str, Any]) -> None:
    options = DecodingOptions(**{"max_new_tokens": 6, **mode})
    here = decoded(model_of(kind, "cpu").generator, torch.device("cpu"), options)
    there = decoded(model_of(kind, FAR).generator, FAR, options)
    assert [_plain(one) for one in there] == [_plain(one) for one in here]


def _plain(found: Any) -> Any:
    """What was written and how likely it is."""
    if isinstance(found, Sequence):
        return [_plain(one) for one in found]
    assert isinstance(found, Decoded)
    return found.ids, pytest.approx(found.log_likelihood, abs=1e-4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Store]:
    encoder = Rag.load(model_folder).encoder
    with Store.open(tmp_path_factory.mktemp("store"), encoder=encoder) as opened:
        opened.add(*DOCUMENTS)
        yield opened


WAYS: list[dict[str, Any]] = [
    *({"fusion": fusion} for fusion in ("sequence", "token", "average", "fid", "concat")),
    {"sample": True, "seed": 3, "returned": 2},
    {"quote": True, "beams": 1},
    {"search": "thorough", "returned": 2},
    {"refinement": Refinement(rerank="maxsim")},
    {"among": ("25.50", "100")},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_questions_are_answered(model_folder: Path, store: Store, way: dict[str, Any]) -> None:
    options = AskOptions(**{"k": 3, "max_new_tokens": 6, "mode": "hybrid", **way})
    here = Rag.load(model_folder)
    expected = [here.ask(question, store, options) for question in ASKED]
    streamed = [[one.text for one in _streamed(here, store, one, options)] for one in ASKED]
    rag = Rag.load(model_folder, device=NAME)
    assert {one.device.type for one in rag.model.parameters()} == {NAME}
    for question, answer, pieces in zip(ASKED, expected, streamed, strict=True):
        same(rag.ask(question, store, options), answer)
        assert [one.text for one in _streamed(rag, store, question, options)] == pieces


def _streamed(rag: Rag, store: Store, question: str, options: AskOptions) -> list[Piece]:
    if options.returned > 1 or options.among:
        return []  # nothing is certain before the end
    return list(rag.stream(question, store, options))


def test_passages_are_read_there(model_folder: Path) -> None:
    texts = [one.text for one in DOCUMENTS]
    encoder = Rag.load(model_folder).encoder
    assert encoder is not None
    expected = encoder.encode_passages(texts)
    encoder = Rag.load(model_folder, device=NAME).encoder
    assert encoder is not None
    assert encoder.encode_passages(texts) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(model_folder: Path, store: Store, precision: Precision) -> None:
    rag = Rag.load(model_folder, device=NAME, precision=precision)
    answer = rag.ask(ASKED[0], store, AskOptions(k=3, max_new_tokens=6, abstain=False))
    assert sum(answer.posterior.values()) == pytest.approx(1, abs=1e-3)
    assert answer.log_likelihood is not None


def test_eight_bits_are_for_processors(model_folder: Path) -> None:
    with pytest.raises(UsageError, match="int8 is for processors, and the model is on far:0"):
        Rag.load(model_folder, device=NAME, precision="int8")


@pytest.fixture(scope="module")
def dpr(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_dpr_world(tmp_path_factory.mktemp("dpr"))


def test_a_checkpoint_of_transformers_answers(dpr: dict[str, Path]) -> None:
    options = AskOptions(k=2, max_new_tokens=5)
    here = Rag.load(dpr["model"])
    with Store.open(dpr["store"], encoder=here.encoder) as store:
        expected = [here.ask(question, store, options) for question in QUESTIONS]
        there = Rag.load(dpr["model"], device=NAME)
        for question, answer in zip(QUESTIONS, expected, strict=True):
            same(there.ask(question, store, options), answer)
