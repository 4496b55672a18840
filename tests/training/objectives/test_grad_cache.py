"""Gradients in chunks are those of the whole batch."""

import torch
from torch import Tensor, nn

from consilience.training.objectives import Tower, cached_gradients, info_nce


def encoder(seed: int, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 3))
    return layers.double()


def texts(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator, dtype=torch.float64)


class Contrast(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

    def forward(self, questions: Tensor, passages: Tensor) -> Tensor:
        positives = torch.arange(len(questions))
        scores = questions @ passages.T
        return info_nce(scores, positives, temperature=self.log_temperature.exp())


def gradients(*modules: nn.Module) -> list[Tensor]:
    found = [each.grad for module in modules for each in module.parameters()]
    assert all(each is not None for each in found)
    return [each for each in found if each is not None]


def test_chunks_give_the_gradients_of_the_large_batch() -> None:
    questions, passages = texts(8, 1), texts(12, 2)
    whole = encoder(3), encoder(4), Contrast()
    loss = whole[2](whole[0](questions), whole[1](passages))
    loss.backward()

    parts = encoder(3), encoder(4), Contrast()
    towers = [Tower(parts[0], questions.split(3)), Tower(parts[1], passages.split(5))]
    value = cached_gradients(towers, parts[2])

    torch.testing.assert_close(value, loss.detach())
    assert not value.requires_grad
    torch.testing.assert_close(gradients(*parts), gradients(*whole))


def test_one_encoder_for_both_sides_adds_up() -> None:
    questions, passages = texts(4, 1), texts(4, 2)
    whole, parts = encoder(3), encoder(3)
    positives = torch.arange(4)
    info_nce(whole(questions) @ whole(passages).T, positives).backward()
    towers = [Tower(parts, questions.split(2)), Tower(parts, passages.split(1))]
    cached_gradients(towers, lambda q, p: info_nce(q @ p.T, positives))
    torch.testing.assert_close(gradients(parts), gradients(whole))


def test_gradients_are_scaled_and_added_to_those_that_are_there() -> None:
    questions, passages = texts(4, 1), texts(4, 2)
    once, twice = encoder(3), encoder(3)

    def loss(vectors: Tensor) -> Tensor:
        return vectors.square().mean()

    cached_gradients([Tower(once, questions.split(2))], loss)
    for _ in range(2):
        cached_gradients([Tower(twice, questions.split(2))], loss, scale=0.5)
    torch.testing.assert_close(gradients(twice), gradients(once))
    assert passages.grad is None


def test_dropout_drops_the_same_units_in_both_passes() -> None:
    layers = encoder(3, dropout=0.5)
    seen: list[Tensor] = []

    def encode(chunk: Tensor) -> Tensor:
        vectors: Tensor = layers(chunk)
        seen.append(vectors.detach().clone())
        return vectors

    torch.manual_seed(11)
    cached_gradients([Tower(encode, texts(6, 1).split(2))], lambda v: v.square().sum())
    assert len(seen) == 6
    torch.testing.assert_close(seen[3:], seen[:3], rtol=0, atol=0)
    assert not torch.equal(seen[0] != 0, seen[1] != 0) or not torch.equal(seen[0], seen[1])


def test_random_numbers_go_on_as_after_one_pass() -> None:
    layers = encoder(3, dropout=0.5)
    chunks = texts(6, 1).split(2)
    torch.manual_seed(11)
    for chunk in chunks:
        layers(chunk)
    expected = torch.rand(4)
    torch.manual_seed(11)
    cached_gradients([Tower(layers, chunks)], lambda vectors: vectors.square().sum())
    assert torch.equal(torch.rand(4), expected)


def test_a_tower_that_the_loss_ignores_stays_as_it_is() -> None:
    used, unused = encoder(3), encoder(4)
    towers = [Tower(used, texts(2, 1).split(1)), Tower(unused, texts(2, 2).split(1))]
    cached_gradients(towers, lambda first, second: first.sum())
    assert all(each.grad is None for each in unused.parameters())
    assert len(gradients(used)) == 4


def test_only_one_chunk_has_a_graph_at_a_time() -> None:
    layers = encoder(3)
    graphs: list[bool] = []

    def encode(chunk: Tensor) -> Tensor:
        vectors: Tensor = layers(chunk)
        graphs.append(vectors.requires_grad)
        return vectors

    cached_gradients([Tower(encode, texts(4, 1).split(1))], lambda vectors: vectors.sum())
    assert graphs == [False] * 4 + [True] * 4
