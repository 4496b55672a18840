"""Matrices read in half the bytes: the same products, and never those of older weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from consilience.encoding.bert import Embeddings, TransformerShape
from consilience.encoding.narrow import FEW_ROWS, Linear, NarrowMatrix, narrow

pytestmark = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="torch was built without FBGEMM, which multiplies with float16 on x86",
)


@pytest.fixture
def layer() -> Linear:
    """A layer whose weights float16 holds."""
    torch.manual_seed(0)
    layer = Linear(16, 24).eval()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.half())
    return layer


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many products were left to a copy."""
    calls = []
    product = NarrowMatrix.product

    def spy(self: NarrowMatrix, rows: Tensor) -> Tensor:
        calls.append(rows.shape)
        return product(self, rows)

    monkeypatch.setattr(NarrowMatrix, "product", spy)
    return lambda: len(calls)


def asked(layer: nn.Module, rows: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = layer(rows)
    return found


def test_products_are_the_same_to_the_order_of_sums(
    layer: Linear, counted: Callable[[], int]
) -> None:
    rows = torch.randn(3, 5, 16)
    wanted = asked(layer, rows)
    layer.narrow()
    torch.testing.assert_close(asked(layer, rows), wanted, rtol=1e-6, atol=1e-6)
    assert counted() == 1


def test_a_matrix_that_float16_does_not_hold_stays_as_it_is(counted: Callable[[], int]) -> None:
    layer = Linear(16, 24).eval()
    with torch.no_grad():
        layer.weight.fill_(1.0).view(-1)[7] = 1.0 + 2.0**-20
    rows = torch.randn(2, 16)
    wanted = asked(layer, rows)
    layer.narrow()
    assert torch.equal(asked(layer, rows), wanted)
    assert counted() == 0


@pytest.mark.parametrize("rows", [0, FEW_ROWS + 1])
def test_none_and_many_rows_are_multiplied_as_ever(
    rows: int, layer: Linear, counted: Callable[[], int]
) -> None:
    layer.narrow()
    assert asked(layer, torch.randn(rows, 16)).shape == (rows, 24)
    assert counted() == 0


def test_as_many_as_are_few_go_to_the_copy(layer: Linear, counted: Callable[[], int]) -> None:
    layer.narrow()
    asked(layer, torch.randn(FEW_ROWS, 16))
    assert counted() == 1


def _step(layer: Linear) -> None:
    with torch.no_grad():
        layer.weight.mul_(2.0)


def _bias(layer: Linear) -> None:
    with torch.no_grad():
        layer.bias.add_(1.0)


def _other(layer: Linear) -> None:
    layer.weight = nn.Parameter(torch.ones_like(layer.weight))


def _loaded(layer: Linear) -> None:
    layer.load_state_dict({name: torch.ones_like(one) for name, one in layer.named_parameters()})


def _learned_unseen(layer: Linear) -> None:
    layer.train()
    layer.weight.data.mul_(2.0)
    layer.eval()


def _moved(layer: Linear) -> None:
    layer.to(torch.float64).to(torch.float32).weight.data.mul_(2.0)


@pytest.mark.parametrize("change", [_step, _bias, _other, _loaded, _learned_unseen, _moved])
def test_other_weights_are_never_answered_from_the_copy(
    change: Callable[[Linear], None], layer: Linear, counted: Callable[[], int]
) -> None:
    rows = torch.randn(2, 16)
    layer.narrow()
    before = asked(layer, rows)
    change(layer)
    after = asked(layer, rows)
    assert counted() == 1
    assert not torch.allclose(before, after)
    assert torch.equal(after, nn.functional.linear(rows, layer.weight, layer.bias))


def test_gradients_are_those_of_the_weights(layer: Linear, counted: Callable[[], int]) -> None:
    layer.narrow()
    layer(torch.randn(2, 16)).sum().backward()
    assert layer.weight.grad is not None
    assert counted() == 0


def test_under_autocast_it_is_as_ever(layer: Linear, counted: Callable[[], int]) -> None:
    layer.narrow()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(2, 16)).dtype == torch.bfloat16
    assert counted() == 0


def test_the_vocabulary_is_held_narrow_with_its_embeddings(counted: Callable[[], int]) -> None:
    embeddings = Embeddings(TransformerShape(vocabulary_size=50, hidden_size=12, heads=2)).eval()
    words = embeddings.word_embeddings.weight
    with torch.no_grad():
        words.copy_(words.half())
    narrow(nn.ModuleList([embeddings]))
    with torch.inference_mode():
        found = embeddings.product(states := torch.randn(3, 12))
    torch.testing.assert_close(found, states @ words.detach().T, rtol=1e-6, atol=1e-6)
    assert counted() == 1


def test_torch_s_own_type_has_the_same_weights(layer: Linear) -> None:
    plain = layer.plain()
    assert type(plain) is nn.Linear
    assert plain.weight is layer.weight
    assert plain.bias is layer.bias
