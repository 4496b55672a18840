from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consilience.errors import MissingError, UsageError
from consilience.training.config import TrainConfig
from consilience.training.settings import (
    Setting,
    as_json,
    differences,
    leaves,
    merged,
    parse_settings,
    read_settings,
)

S = Setting("Help.", "帮助。")


@dataclass(frozen=True)
class Inner:
    rank: Annotated[int, Setting("Rank.", "秩。", least=1, most=8)] = 4
    kind: Annotated[Literal["none", "lora"], S] = "none"


@dataclass(frozen=True)
class Outer:
    output: Annotated[Path, S]
    inner: Annotated[Inner, S] = Inner()
    rate: Annotated[float, Setting("Rate.", "率。", least=0)] = 0.5
    names: Annotated[tuple[str, ...], S] = ()
    shares: Annotated[dict[str, float], Setting("Shares.", "份额。", least=0)] = field(
        default_factory=dict
    )
    limit: Annotated[int | None, S] = None
    fast: Annotated[bool, S] = False


def parse(**values: object) -> Outer:
    return parse_settings(Outer, values, source="run.yaml")


def test_forms_are_compared_with_defaults_where_they_say_nothing() -> None:
    old = {"output": "a", "inner": {"rank": 4}, "shares": {"x": 1.0, "y": 2.0}, "gone": {"x": 1}}
    new = {"output": "a", "inner": {"kind": "lora"}, "shares": {"x": 1.0}, "names": [], "rate": 1}
    assert differences(Outer, old, new) == {
        "inner.kind": ("none", "lora"),
        "shares": ({"x": 1.0, "y": 2.0}, {"x": 1.0}),
        "rate": (0.5, 1),
        "gone.x": (1, None),
    }
    whole = as_json(Outer(Path("a"), limit=3))
    assert differences(Outer, whole, whole) == {}
    assert differences(Outer, {"output": "a"}, whole) == {"limit": (None, 3)}
    assert differences(Outer, whole, {"output": "b"}) == {"output": ("a", "b"), "limit": (3, None)}


def test_values_take_the_declared_types() -> None:
    found = parse(
        output="runs/a",
        inner={"rank": "3", "kind": "lora"},
        rate="1e-4",
        names="a,b",
        shares="x=2,y",
        limit="none",
        fast="yes",
    )
    assert found == Outer(
        Path("runs/a"), Inner(3, "lora"), 1e-4, ("a", "b"), {"x": 2.0, "y": 1.0}, None, True
    )


def test_five_mistakes_are_told_at_once_each_with_its_key_and_what_is_allowed() -> None:
    with pytest.raises(UsageError) as caught:
        parse(inner={"rank": 9, "kind": "lore"}, rate="fast", nmaes="a", fast=3)
    assert caught.value.message == (
        "6 mistakes in run.yaml: nmaes is no setting; did you mean names?; "
        "output is missing (a path); "
        "inner.rank is 9, allowed: a whole number from 1 to 8; "
        "inner.kind is 'lore', allowed: none | lora; "
        "rate is 'fast', allowed: a number from 0; "
        "fast is 3, allowed: true | false"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", float("nan")),
        ("rate", -1),
        ("rate", True),
        ("rate", None),
        ("limit", 1.5),
        ("names", 3),
        ("shares", {"x": -1}),
        ("shares", [1]),
        ("inner", 3),
    ],
)
def test_a_wrong_value_names_its_key(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"a mistake in run.yaml: {name} is "):
        parse(output="a", **{name: value})


def test_an_unknown_key_that_resembles_none_lists_all() -> None:
    with pytest.raises(UsageError, match="zzz is no setting, allowed: output, inner, rate"):
        parse(output="a", zzz=1)


def test_overrides_take_the_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("output: a\ninner:\n  rank: 2\n", encoding="utf-8")
    found = read_settings(Outer, path, {"inner.kind": "lora", "rate": "2"})
    assert found == Outer(Path("a"), Inner(2, "lora"), 2.0)


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    with pytest.raises(MissingError, match="no config file"):
        read_settings(Outer, path)
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(UsageError, match="is not YAML"):
        read_settings(Outer, path)
    path.write_text("- a", encoding="utf-8")
    with pytest.raises(UsageError, match="holds list, not settings"):
        read_settings(Outer, path)
    path.write_text("!!python/object/apply:os.system ['true']", encoding="utf-8")
    with pytest.raises(UsageError, match="is not YAML"):
        read_settings(Outer, path)


def test_leaves_are_the_settings_with_their_dotted_keys() -> None:
    found = {leaf.path: leaf for leaf in leaves(Outer)}
    assert list(found)[:3] == ["output", "inner.rank", "inner.kind"]
    assert found["output"].required
    assert not found["inner.rank"].required
    assert found["inner.rank"].default == 4
    assert found["shares"].default == {}


@given(
    rank=st.integers(1, 8),
    rate=st.floats(0, 1e6),
    names=st.lists(st.text("abc", min_size=1)),
    limit=st.none() | st.integers(-5, 5),
    fast=st.booleans(),
)
def test_settings_survive_their_json_form(
    rank: int, rate: float, names: list[str], limit: int | None, fast: bool
) -> None:
    made = Outer(Path("x"), Inner(rank), rate, tuple(names), {"a": rate}, limit, fast)
    assert parse_settings(Outer, as_json(made), source="x") == made


def test_merging_leaves_the_values_alone() -> None:
    values = {"a": {"b": 1}}
    assert merged(values, {"a.c": 2, "d.e": 3}) == {"a": {"b": 1, "c": 2}, "d": {"e": 3}}
    assert values == {"a": {"b": 1}}


class TestTrainConfig:
    def test_every_setting_is_explained_in_both_languages(self) -> None:
        for leaf in leaves(TrainConfig):
            assert leaf.setting.help.endswith("."), leaf.path
            assert leaf.setting.zh.endswith("。"), leaf.path

    def test_settings_that_contradict_each_other_are_told_together(self) -> None:
        with pytest.raises(UsageError) as caught:
            parse_settings(
                TrainConfig,
                {
                    "output": "x",
                    "data": {},
                    "patience": 2,
                    "train": ["passage_encoder"],
                },
                source="x",
            )
        for part in ("store is none", "data.train names no file", "patience needs", "refresh.mode"):
            assert part in caught.value.message

    def test_a_whole_config(self, tmp_path: Path) -> None:
        path = tmp_path / "joint.yaml"
        path.write_text(
            "output: runs/joint\nstore: knowledge\ndata:\n  train: [a.jsonl]\n"
            "objectives: {sequence: 1, info_nce: 0.1}\nadapter: {kind: lora, rank: 4}\n",
            encoding="utf-8",
        )
        config = read_settings(TrainConfig, path)
        assert config.joint
        assert config.objectives == {"sequence": 1.0, "info_nce": 0.1}
        assert config.adapter.rank == 4

    def test_an_unknown_objective_lists_those_there_are(self) -> None:
        with pytest.raises(UsageError, match=r"objectives is .*sequence \| token \| emdr2"):
            parse_settings(
                TrainConfig,
                {"output": "x", "data": {"train": "a"}, "objectives": {"magic": 1}},
                source="x",
            )
