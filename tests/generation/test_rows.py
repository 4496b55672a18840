"""Rows that come together and go: every kind of generator, memories joined and cut."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from consilience.generation import Joining, NextToken, Pair, Shrinking, TokenRows
from tests.generation import library
from tests.generation.library import FAMILIES
from tests.generation.test_causal import MAKERS, made
from tests.model.small import compact


def seq2seq(name: str) -> Any:
    from consilience.generation import Seq2SeqGenerator

    return Seq2SeqGenerator(FAMILIES[name]())


def causal(name: str) -> Any:
    from consilience.generation import CausalGenerator

    return CausalGenerator(made(name))


KINDS: dict[str, Callable[[], Any]] = {
    "compact": lambda: compact().eval(),
    **{name: lambda name=name: seq2seq(name) for name in FAMILIES},
    **{name: lambda name=name: causal(name) for name in MAKERS},
}
LENGTHS = [7, 4, 9, 5]


@pytest.fixture(scope="module", params=sorted(KINDS))
def generator(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def rows(generator: Any, lengths: list[int]) -> TokenRows:
    """Random ids; each row's depend on its length alone."""
    ids = torch.full((len(lengths), max(lengths)), library.PAD)
    for place, length in enumerate(lengths):
        drawn = torch.randint(6, 55, (length,), generator=torch.Generator().manual_seed(length))
        ids[place, :length] = drawn
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    words = getattr(generator, "tokens", None)
    if words is not None:
        ids[:, 0], ids[:, 2] = words.start, words.separator
        ids = ids.masked_fill(~mask, words.pad)
    return TokenRows(ids, mask)


def read(generator: Any, *lengths: int) -> Any:
    with torch.inference_mode():
        return generator.memorise(rows(generator, list(lengths)))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def walk(generator: Any, memory: Any, state: Any, steps: range) -> list[Tensor]:
    """Log p along two beams that part and change places; the same tokens whatever the row."""
    found = []
    for step in steps:
        n = len(state_rows(memory))
        ids = torch.tensor([[10 + step, 20 + step]]).expand(n, -1)
        parents = torch.tensor([[0, 0] if step == 0 else [1, 0]]).expand(n, -1)
        following: NextToken = generator.step(memory, state, ids, parents)
        found.append(following.log_probs().clone())
    return found


def state_rows(memory: Any) -> Tensor:
    """Any tensor with a row for each row."""
    for name in ("last", "mask"):
        if hasattr(memory, name):
            return getattr(memory, name)  # type: ignore[no-any-return]
    return memory.source.ids  # type: ignore[no-any-return]


def test_every_kind_takes_part(generator: Any) -> None:
    assert isinstance(generator, Joining)
    assert isinstance(generator, Shrinking)


def test_what_was_read_apart_is_as_if_read_at_once(generator: Any) -> None:
    at_once = read(generator, *LENGTHS)
    joined = generator.join([read(generator, 7, 4), read(generator, 9), read(generator, 5)])
    expected, found = (generator.begin(memory) for memory in (at_once, joined))
    close(found[1].log_probs(), expected[1].log_probs())
    steps = range(3)
    for one, other in zip(
        walk(generator, joined, found[0], steps),
        walk(generator, at_once, expected[0], steps),
        strict=True,
    ):
        close(one, other)


@pytest.mark.parametrize("kept", [[2], [0, 3], [3, 1], [1, 1, 2]], ids=str)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_stays_does_not_notice(generator: Any, kept: list[int], before: int) -> None:
    memory, whole = read(generator, *LENGTHS), read(generator, *LENGTHS)
    state, _ = generator.begin(memory)
    expected, _ = generator.begin(whole)
    walk(generator, memory, state, range(before))
    walk(generator, whole, expected, range(before))
    cut, rest = generator.keep(memory, state, torch.tensor(kept))
    steps = range(before, before + 3)
    for one, other in zip(
        walk(generator, cut, rest, steps), walk(generator, whole, expected, steps), strict=True
    ):
        close(one, other[kept])


def test_what_was_cut_is_still_whole_elsewhere(generator: Any) -> None:
    memory = read(generator, *LENGTHS)
    state, first = generator.begin(memory)
    expected = first.log_probs().clone()
    generator.keep(memory, state, torch.tensor([1]))
    _, again = generator.begin(memory)
    close(again.log_probs(), expected)


def test_rows_may_be_cut_twice(generator: Any) -> None:
    memory, whole = read(generator, *LENGTHS), read(generator, *LENGTHS)
    state, _ = generator.begin(memory)
    expected, _ = generator.begin(whole)
    cut = generator.keep(memory, state, torch.tensor([0, 2, 3]))
    cut = generator.keep(*cut, torch.tensor([1, 2]))
    (found,), (other,) = (walk(generator, *pair, range(1)) for pair in (cut, (whole, expected)))
    close(found, other[[2, 3]])


@pytest.mark.parametrize("name", ["bart", "llama"])
def test_what_is_added_to_the_input_stays_with_its_row(name: str) -> None:
    generator = KINDS[name]()
    push = torch.randn(4, 1, 16, generator=torch.Generator().manual_seed(0))
    memory, whole = read(generator, *LENGTHS), read(generator, *LENGTHS)
    for one in (memory, whole):
        one.augment = lambda states: states + push
    state, _ = generator.begin(memory)
    expected, _ = generator.begin(whole)
    cut = generator.keep(
        *generator.keep(memory, state, torch.tensor([3, 0, 2])), torch.tensor([2, 0])
    )
    (found,), (other,) = (walk(generator, *pair, range(1)) for pair in (cut, (whole, expected)))
    close(found, other[[2, 3]])


def test_texts_go_with_their_rows() -> None:
    generator = compact().eval()
    pairs = [Pair("who", "", f"the {word} is the fee") for word in ("bank", "card", "exam")]
    joined = generator.join([generator.read(pairs[:1]), generator.read(pairs[1:])])
    ids = generator.answer_ids("card")[:-1]
    assert generator.locate(joined, 0, ids) == []
    (stretch,) = generator.locate(joined, 1, ids)
    assert pairs[1].passage[stretch.start : stretch.end] == "card"
    state, _ = generator.begin(joined)
    cut, _ = generator.keep(joined, state, torch.tensor([2, 1]))
    assert generator.locate(cut, 1, ids) == [stretch]
