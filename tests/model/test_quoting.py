"""Answers that stand word for word in a passage that they cite."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from consilience import Document, Rag, Store
from consilience.errors import UsageError
from consilience.generation import CompactGenerator, NextToken, Pair
from consilience.model import AskOptions
from consilience.model.decoding import DecodingOptions, decode
from consilience.model.decoding.quoting import Quotable
from consilience.model.decoding.streaming import Streams
from consilience.model.decoding.thorough import score_answers
from tests.model.small import worded_gpt2

DOCUMENTS = [
    Document("The fee of the card is 25.50. The bank is in the ward.", "card.txt", "Card fee"),
    Document("门诊的时间是上午9点。费用是100。", "门诊.txt", "门诊"),
    Document("Visit hours of the ward: 10 to 12.", "ward.txt", "Ward"),
]
PAIRS = [
    Pair("what is the fee?", "Card fee", "The fee of the card is 25.50."),
    Pair("what is the fee?", "Ward", "Visit hours of the ward: 10 to 12."),
]
OTHERS = [
    Pair("费用是多少？", "门诊", "门诊的时间是上午9点。"),
    Pair("费用是多少？", "Card fee", "费用是100。"),
]
END = 9


@pytest.fixture(scope="module")
def rag(tiny_model_folder: Path) -> Rag:
    return Rag.load(tiny_model_folder)


@pytest.fixture(scope="module")
def generator(rag: Rag) -> CompactGenerator:
    assert isinstance(rag.model.generator, CompactGenerator)
    return deepcopy(rag.model.generator).float()  # bfloat16 would round what is compared


@pytest.fixture
def store(tmp_path: Path, rag: Rag) -> Iterator[Store]:
    with Store.open(tmp_path / "store", encoder=rag.encoder) as opened:
        opened.add(*DOCUMENTS)
        yield opened


def stretches(generator: CompactGenerator, pairs: Sequence[Pair], most: int) -> list[list[int]]:
    """Every stretch of at most `most` tokens of the passages, once."""
    found = {}
    for pair in pairs:
        ids = generator.tokens.encode([pair.passage])[0].ids
        for start in range(len(ids)):
            for size in range(1, min(most, len(ids) - start) + 1):
                found[tuple(ids[start : start + size])] = None
    return [list(one) for one in found]


@pytest.mark.parametrize(
    "how",
    [
        {"beams": 1},
        {"beams": 3},
        {"fusion": "token", "beams": 2},
        {"fusion": "average"},
        {"fusion": "fid", "beams": 2},
        {"search": "thorough"},
        {"search": "fast", "beams": 2},
        {"sample": True, "returned": 4, "seed": 3},
        {"sample": True, "returned": 3, "top_k": 5, "top_p": 0.7, "temperature": 2.0},
        {"beams": 2, "min_new_tokens": 3},
        {"repetition_penalty": 3.0},
    ],
    ids=str,
)
def test_an_answer_stands_in_a_passage_that_it_cites(
    rag: Rag, store: Store, how: dict[str, Any]
) -> None:
    for question in ("what is the fee of the card?", "费用是多少？"):
        answer = rag.ask(question, store, AskOptions(quote=True, max_new_tokens=7, **how))
        assert answer.text
        quoted = [q.text for c in answer.citations for q in c.quotes if len(c.quotes) == 1]
        assert answer.text in quoted
        texts = [document.text for document in DOCUMENTS]
        for text in (answer.text, *(other.text for other in answer.alternatives)):
            assert any(text in one for one in texts), text


def test_without_it_this_model_writes_what_no_passage_says(rag: Rag, store: Store) -> None:
    answer = rag.ask("what is the fee?", store, AskOptions(max_new_tokens=7))
    assert not any(answer.text in document.text for document in DOCUMENTS)


@pytest.mark.parametrize("fusion", ["sequence", "token"])
def test_a_full_beam_finds_the_best_of_all_quotations(
    generator: CompactGenerator, fusion: Any
) -> None:
    prior = torch.tensor([[0.3, 0.7]]).log()
    memory = generator.read(PAIRS)
    every = stretches(generator, PAIRS, 3)
    given = score_answers(generator, memory, [[[*one, generator.end] for one in every]], k=2)[0]
    # The first word is chosen given that there is an answer, which this score does not know.
    there = given[:, :, 0] - _answerable(generator, memory)[:, None]
    given = torch.cat([there[..., None], given[..., 1:]], dim=-1)
    weights = _opened(generator, memory, prior)
    if fusion == "sequence":
        worth = (weights[:, None] + given.sum(-1)).logsumexp(0)
    else:
        lengths = torch.tensor([len(one) + 1 for one in every])
        steps = (weights[:, None, None] + given).logsumexp(0)
        worth = (steps * (torch.arange(4) < lengths[:, None])).sum(-1)
    options = DecodingOptions(fusion=fusion, beams=400, max_new_tokens=3, quote=True)
    found = decode(generator, memory, prior, options=options)[0][0]
    assert found.ids == every[int(worth.argmax())]
    told = float(worth.max()) + math.log(found.support)
    assert found.log_likelihood == pytest.approx(told, abs=1e-4)


def _answerable(generator: CompactGenerator, memory: Any) -> torch.Tensor:
    """Log p that there is an answer, by passage."""
    first = generator.begin(memory)[1]
    return (1 - first.weights[:, 0, generator.none] / first.totals[:, 0]).log()


def _opened(generator: CompactGenerator, memory: Any, prior: torch.Tensor) -> torch.Tensor:
    """The prior given that there is an answer, `[k]`."""
    return (prior[0] + _answerable(generator, memory)).log_softmax(-1)


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_quoted_does_not_depend_on_the_batch(
    generator: CompactGenerator, beams: int
) -> None:
    options = DecodingOptions(beams=beams, max_new_tokens=9, quote=True)
    prior = torch.zeros(2, 2).log_softmax(-1)
    both = decode(generator, generator.read([*PAIRS, *OTHERS]), prior, options=options)
    for pairs, (best, *_) in zip((PAIRS, OTHERS), both, strict=True):
        (alone, *_), *_ = decode(generator, generator.read(pairs), prior[:1], options=options)
        assert alone.ids == best.ids
        assert best.ids in stretches(generator, pairs, 9)


def test_groups_of_beams_quote_too(generator: CompactGenerator) -> None:
    options = DecodingOptions(
        beams=4, groups=2, diversity=1.0, returned=4, max_new_tokens=5, quote=True
    )
    found = decode(
        generator, generator.read(PAIRS), torch.zeros(1, 2).log_softmax(-1), options=options
    )
    every = stretches(generator, PAIRS, 5)
    assert all(one.ids in every for one in found[0])


def test_a_stream_writes_the_same(generator: CompactGenerator) -> None:
    options = DecodingOptions(max_new_tokens=6, quote=True)
    prior = torch.zeros(1, 2).log_softmax(-1)
    streams = Streams(generator, generator.read(PAIRS), prior, options=options)
    shown: list[str] = []
    while streams.open:
        shown += [written.text for _, written in streams.step() if written.token is not None]
    whole = decode(generator, generator.read(PAIRS), prior, options=options)[0][0]
    assert shown[-1] == generator.decode(whole.ids)
    assert all(after.startswith(before) for before, after in pairwise(shown))


def test_passages_without_text_are_answered_with_nothing(generator: CompactGenerator) -> None:
    memory = generator.read([Pair("what is the fee?", "Card fee", "")])
    options = DecodingOptions(quote=True)
    found = decode(generator, memory, torch.zeros(1, 1), options=options)[0][0]
    assert (found.ids, found.ended) == ([], True)


def allowed(quotable: Quotable, written: list[int]) -> set[int]:
    """The tokens that may follow in the first question."""
    b, t = len(quotable.ids), len(written)
    following = NextToken(torch.ones(b, 1, END + 1), torch.ones(b, 1))
    before = torch.tensor(written, dtype=torch.long).expand(b, 1, t)
    return set(quotable.limit(following, before).weights[0, 0].nonzero()[:, 0].tolist())


def test_what_may_follow() -> None:
    ids = torch.tensor([[1, 2, 3, 0, 1, 2, 4, 0], [5, 5, 5, 5, 5, 5, 5, 5]])
    inside = ids != 0
    quotable = Quotable(ids, inside, END)
    assert allowed(quotable, []) == {1, 2, 3, 4}
    assert allowed(quotable, [1]) == {2, END}
    assert allowed(quotable, [1, 2]) == {3, 4, END}
    assert allowed(quotable, [2, 3]) == {END}, "a stretch ends with its passage"
    assert allowed(quotable, [3, 1]) == {END}, "and does not go on in the next one"
    assert allowed(quotable, [2, 1]) == {END}
    assert allowed(quotable.only(torch.tensor([1])), [5, 5]) == {5, END}
    nothing = Quotable(ids, torch.zeros_like(inside), END)
    assert allowed(nothing, []) == {END}


def test_rows_side_by_side_are_not_one_text(generator: CompactGenerator) -> None:
    memory = generator.read(PAIRS)
    quotable = Quotable.of(generator, memory, questions=1)
    passages = [generator.tokens.encode([pair.passage])[0].ids for pair in PAIRS]
    assert quotable.ids[quotable.inside].tolist() == [one for ids in passages for one in ids]
    size = len(quotable.inside[0]) // 2
    assert not quotable.inside[0, size - 1 :: size].any()


def test_who_cannot_quote_says_so(rag: Rag, store: Store) -> None:
    prior = torch.zeros(1, 2).log_softmax(-1)
    gpt2 = worded_gpt2()
    with pytest.raises(UsageError, match="CausalGenerator cannot be held to quotations"):
        decode(gpt2, gpt2.read(PAIRS), prior, options=DecodingOptions(quote=True))
    for fusion in ("attention", "concat"):
        with pytest.raises(UsageError, match=f"the fusion {fusion} does not read passages one by"):
            AskOptions(quote=True, fusion=fusion)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="quote have no meaning"):
        AskOptions(quote=True, among=("yes", "no"))
    with pytest.raises(UsageError, match="a quotation has no tokens that are forced"):
        DecodingOptions(quote=True, forced_first=1)
