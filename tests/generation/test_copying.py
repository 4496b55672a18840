import pytest
import torch

from consilience.encoding.folder import open_folder
from consilience.generation import CompactGenerator, Pair
from consilience.generation.compact import CompactMemory, _best_path, build_generator
from tests.tiny import write_tiny_model

PAIRS = [
    Pair("what is the fee", "fees", "the fee of the card is 25.50 in all"),
    Pair("门诊时间", "医院", "门诊的时间是上午。"),
    Pair("who", "", "a"),
]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> CompactGenerator:
    folder = open_folder(write_tiny_model(tmp_path_factory.mktemp("model")))
    return build_generator(folder, folder.tensors()).float()


@pytest.fixture
def memory(generator: CompactGenerator) -> CompactMemory:
    return generator.read(PAIRS)


def targets(rows: int, steps: int = 4) -> torch.Tensor:
    return torch.randint(6, 60, (rows, steps), generator=torch.Generator().manual_seed(5))


def test_every_step_is_a_distribution(generator: CompactGenerator, memory: CompactMemory) -> None:
    log_probs = generator.next_logits(memory, targets(3))
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3, 4), atol=1e-5, rtol=1e-5)


def test_target_log_probs_are_those_of_the_distribution(
    generator: CompactGenerator, memory: CompactMemory
) -> None:
    ids = targets(3)
    full = generator.next_logits(memory, ids)
    expected = full.gather(-1, ids[..., None])[..., 0]
    torch.testing.assert_close(generator.score(memory, ids), expected, atol=1e-4, rtol=1e-4)


def test_cached_steps_equal_the_whole_pass(
    generator: CompactGenerator, memory: CompactMemory
) -> None:
    ids = targets(3)
    full = generator.next_logits(memory, ids)
    state, following = generator.begin(memory)
    for step in range(ids.shape[1]):
        here = following.log_probs()[:, 0]
        torch.testing.assert_close(here, full[:, step], atol=1e-4, rtol=1e-4)
        following = generator.step(
            memory, state, ids[:, step : step + 1], torch.zeros(3, 1, dtype=torch.long)
        )


def test_beams_are_answered_as_rows_would_be(
    generator: CompactGenerator, memory: CompactMemory
) -> None:
    """Two beams that part ways and change places give what each gives alone."""
    state, _ = generator.begin(memory)
    generator.step(memory, state, torch.tensor([[7, 8]] * 3), torch.tensor([[0, 0]] * 3))
    following = generator.step(
        memory, state, torch.tensor([[9, 9]] * 3), torch.tensor([[1, 0]] * 3)
    )
    swapped = following.log_probs()
    for beam, second in enumerate((8, 7)):
        ids = torch.tensor([[second, 9, 1]] * 3)
        full = generator.next_logits(memory, ids)
        torch.testing.assert_close(swapped[:, beam], full[:, 2], atol=1e-4, rtol=1e-4)


def test_rows_do_not_see_each_other(generator: CompactGenerator, memory: CompactMemory) -> None:
    ids = targets(3)
    together = generator.score(memory, ids)
    for index, pair in enumerate(PAIRS):
        alone = generator.score(generator.read([pair]), ids[index : index + 1])
        torch.testing.assert_close(alone[0], together[index], atol=1e-4, rtol=1e-4)


def test_copied_characters_are_found_again(
    generator: CompactGenerator, memory: CompactMemory
) -> None:
    passage = PAIRS[0].passage
    (tokens,) = generator.tokens.encode(["25.50"])
    (stretch,) = generator.locate(memory, 0, tokens.ids)
    assert passage[stretch.start : stretch.end] == "25.50"


def test_words_that_are_not_there_are_not_located(
    generator: CompactGenerator, memory: CompactMemory
) -> None:
    (tokens,) = generator.tokens.encode(["考试"])
    assert generator.locate(memory, 0, tokens.ids) == []
    assert generator.locate(memory, 0, []) == []


def test_joined_rows_are_read_as_one(generator: CompactGenerator, memory: CompactMemory) -> None:
    """Attention and pointer reach every passage: the rows' copies add up to the joined row's."""
    joined = generator.together(generator.read([*PAIRS, PAIRS[1], PAIRS[0], PAIRS[2]]), 3)
    ids = targets(2)
    full = generator.next_logits(joined, ids)
    torch.testing.assert_close(full.exp().sum(-1), torch.ones(2, 4), atol=1e-5, rtol=1e-5)
    alone = generator.together(generator.read([PAIRS[1], PAIRS[0], PAIRS[2]]), 3)
    torch.testing.assert_close(
        generator.score(alone, ids[1:]), generator.score(joined, ids)[1:], atol=1e-4, rtol=1e-4
    )


def test_an_answer_is_one_stretch_when_it_can_be() -> None:
    """The first token stands at 0 and 3; only from 3 does the second follow."""
    allowed = torch.tensor([[True, False, False, True, False], [False, True, False, False, True]])
    allowed[1, 1] = False
    assert _best_path(torch.zeros(2, 5), allowed) == [3, 4]


def test_a_question_as_long_as_the_window_leaves_room_for_the_passage(
    generator: CompactGenerator,
) -> None:
    (row,) = generator.read([Pair("what " * 900, "", "the fee is 9 " * 200)]).rows
    assert len(row.ids) <= generator.config.reader_tokens
    assert len(row.offsets) >= 100


def test_the_question_is_never_cut_while_the_passage_can_be(generator: CompactGenerator) -> None:
    question = "what is the fee of the card"
    (row,) = generator.read([Pair(question, "", "the fee is 9 " * 500)]).rows
    (asked,) = generator.tokens.encode([question])
    assert row.ids[1 : 1 + len(asked.ids)] == asked.ids


def test_copying_can_be_learned(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A fresh tiny model learns to copy what stands after a colon, on passages it never saw."""
    folder = open_folder(write_tiny_model(tmp_path_factory.mktemp("copying"), seed=1))
    model = build_generator(folder, {k: v.float() for k, v in folder.tensors().items()}).float()
    model.requires_grad_(True).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(2)

    def batch(size: int) -> tuple[list[Pair], torch.Tensor]:
        digits = torch.randint(0, 10, (size, 4), generator=draw).tolist()
        pairs = [Pair("what", "", f"{a} is : {b} , {c} ! {d}") for a, b, c, d in digits]
        answers = [model.tokens.encode([str(row[1])])[0].ids for row in digits]
        return pairs, torch.tensor([[*ids, model.end] for ids in answers])

    for _ in range(250):
        pairs, wanted = batch(32)
        memory = model.memorise(model.rows(pairs))
        loss = -model.target_log_probs(memory, wanted).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pairs, wanted = batch(64)
    with torch.inference_mode():
        written = model.next_logits(model.memorise(model.rows(pairs)), wanted).argmax(-1)
    assert float((written == wanted).all(-1).float().mean()) > 0.9


def test_shares_of_passages_read_together_are_those_of_the_attention(
    generator: CompactGenerator, memory: CompactMemory
) -> None:
    joined = generator.together(memory, 3)
    state, _ = generator.begin(joined)
    assert state.shares is not None
    assert state.shares.shape == (1, 1, 3)
    torch.testing.assert_close(state.shares.sum(-1), torch.ones(1, 1))
    silent = generator.together(generator.read(PAIRS), 3)
    length = silent.source.ids.shape[1] // 3
    silent.source.bias = silent.source.bias.clone()
    silent.source.bias[..., :length] = -1e9
    state, _ = generator.begin(silent)
    generator.step(silent, state, torch.tensor([[9, 7]]), torch.zeros(1, 2, dtype=torch.long))
    assert state.shares is not None
    assert state.shares.shape == (1, 2, 3)
    torch.testing.assert_close(state.shares[..., 0], torch.zeros(1, 2))
    assert generator.begin(memory)[0].shares is None
