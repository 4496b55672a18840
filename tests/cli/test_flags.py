import inspect
from dataclasses import dataclass
from typing import Annotated, get_args, get_type_hints

import pytest
from typer import Option

from consilience.cli.ask import Manner
from consilience.cli.flags import IndexName, flattened
from consilience.cli.search import Ranking


@dataclass(frozen=True)
class Size:
    width: Annotated[int, Option(help="How wide.")]
    height: Annotated[int, Option()] = 3


def area(name: str, *, size: Size, unit: Annotated[str, Option()] = "m") -> int:
    """The area."""
    return len(name + unit) * size.width * size.height


def test_fields_take_the_place_of_their_dataclass() -> None:
    signature = inspect.signature(flattened(area))
    assert list(signature.parameters) == ["name", "width", "height", "unit"]
    assert signature.parameters["width"].default is inspect.Parameter.empty
    assert signature.parameters["height"].default == 3
    assert get_args(signature.parameters["width"].annotation)[1].help == "How wide."


def test_the_dataclass_is_put_together_again() -> None:
    assert flattened(area)(name="ab", width=2, height=5, unit="c") == 30
    assert flattened(area).__doc__ == "The area."


def test_a_name_that_stands_for_two_things_is_refused() -> None:
    def twice(width: int, *, size: Size) -> int:
        return width * size.width

    with pytest.raises(ValueError, match="duplicate parameter name: 'width'"):
        flattened(twice)


def test_the_fusions_offered_are_those_that_exist() -> None:
    from consilience.model.fusion import FUSIONS

    assert get_args(get_args(get_type_hints(Manner, include_extras=True)["fusion"])[0]) == FUSIONS


def test_the_modes_offered_are_those_that_exist() -> None:
    from consilience.retrieval import Mode

    hints = get_type_hints(Ranking, include_extras=True)
    assert get_args(get_args(hints["mode"])[0]) == get_args(Mode)


def test_what_ask_leaves_out_is_what_the_model_leaves_out() -> None:
    from consilience.model import AskOptions

    flags, options = Manner(), AskOptions()
    for name in ("fusion", "k", "beams", "max_new_tokens", "quote", "mode", "access"):
        assert getattr(flags, name) == getattr(options, name), name


def test_the_indexes_offered_are_those_there_are() -> None:
    from consilience.retrieval import tuning

    assert get_args(IndexName) == get_args(tuning.IndexName)
