import torch
from torch import Tensor

from consilience.generation.branches import Branches, Held, Tree

ROWS, HEADS, SIZE = 2, 3, 4


def written(number: int, n: int) -> Tensor:
    """Keys of one token of every open end, `[rows * n, heads, 1, size]`, each told apart."""
    base = 100.0 * number + torch.arange(ROWS * n, dtype=torch.float)
    return base[:, None, None, None].expand(-1, HEADS, 1, SIZE)


def test_open_ends_see_their_ancestors_and_no_one_else() -> None:
    tree, walk = Tree(ROWS, torch.device("cpu")), torch.Generator().manual_seed(0)
    branches = Branches(tree)
    branches.update(written(0, 1), -written(0, 1))
    paths = [[[float(row)]] for row in range(ROWS)]
    for number in range(1, 40):
        n = 1 + number % 5
        parents = torch.randint(0, tree.ends, (ROWS, n), generator=walk)
        kept = tree.extend(parents)
        if kept is not None:
            branches.keep(kept)
        keys, values = branches.update(written(number, n), -written(number, n))
        paths = [
            [
                [*paths[row][int(parents[row, end])], 100.0 * number + row * n + end]
                for end in range(n)
            ]
            for row in range(ROWS)
        ]
        torch.testing.assert_close(values, -keys)
        for row in range(ROWS):
            for end in range(n):
                seen = tree.ancestors[row, end]
                assert keys[row, 0, seen, 0].tolist() == paths[row][end]
                assert tree.depths[row, seen].tolist() == list(range(number + 1))
                assert (tree.bias[row, 0, end] == 0).tolist() == seen.tolist()
        assert branches.get_seq_length() == tree.depth == number
    assert tree.nodes <= tree.capacity < 39 * 3


def at_three_ends(there: Tensor | None = None) -> Tree:
    tree = Tree(ROWS, torch.device("cpu"))
    tree.extend(torch.zeros(ROWS, 3, dtype=torch.long), there)
    return tree


def test_by_rows_puts_open_ends_side_by_side() -> None:
    tree = at_three_ends()
    grouped = tree.by_rows(written(0, 3))
    assert grouped.shape == (ROWS, HEADS, 3, SIZE)
    assert grouped[1, 2, :, 3].tolist() == [3.0, 4.0, 5.0]
    assert torch.equal(tree.apart(grouped), written(0, 3).transpose(1, 2))


def test_only_ends_that_are_there_have_states() -> None:
    there = torch.tensor([[True, False, False], [True, True, False]])
    tree, three = at_three_ends(there), written(0, 3)[[0, 3, 4]]
    grouped = tree.by_rows(three)
    assert grouped[:, 1, :, 2].tolist() == [[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]
    assert torch.equal(tree.apart(grouped), three.transpose(1, 2))
    tree.extend(torch.zeros(ROWS, 1, dtype=torch.long))
    assert tree.places is None


def test_what_was_read_is_held_in_one_piece() -> None:
    held = Held()
    assert held.get_seq_length() == 0
    states = torch.randn(ROWS, 7, HEADS, SIZE).transpose(1, 2)
    keys, values = held.update(states, states + 1)
    assert keys.is_contiguous()
    assert values.is_contiguous()
    torch.testing.assert_close(keys, states)
    assert held.get_seq_length() == 7
