"""Settings of a federation that contradict each other are refused before anything begins."""

from pathlib import Path
from typing import Any

import pytest

from consilience.errors import UsageError
from tests.federation.fakes import config_of

SECURE: dict[str, Any] = {"secure": {"sums": True}}
PRIVATE: dict[str, Any] = {"privacy": {"epsilon": 4}, "travel": {"kind": "alternate"}}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"travel": {"kind": "subset"}}, "travel.names names nothing"),
        ({"travel": {"kind": "full", "names": ["a"]}}, "travel.names is given, but"),
        ({**SECURE, "travel": {"kind": "stack"}}, "stacking needs each party's factors"),
        ({**SECURE, "mean": {"kind": "median"}}, "mean.kind median compares updates"),
        ({**SECURE, "mean": {"longest": 1}}, "mean.longest measures each update"),
        ({**SECURE, "travel": {"kind": "full", "precision": "int8"}}, "must be float32"),
        ({**SECURE, "scaffold": True}, "which secure.sums does not carry"),
        ({**PRIVATE, "travel": {"kind": "full"}}, "privacy needs few weights that are averaged"),
        ({**PRIVATE, "travel": {"kind": "stack"}}, "but travel.kind is stack"),
        ({"privacy": {"party_noise": 1}}, "so it needs secure.sums"),
        ({"mean": {"optimiser": "adam"}}, "mean.rate 1 is for averaging; adam takes about"),
        ({"scaffold": True, "travel": {"kind": "stack"}}, "stack trains fresh factors every round"),
        ({"scaffold": True, "proximal": 0.1}, "scaffold and proximal both correct drift"),
        ({**PRIVATE, "scaffold": True}, "which the privacy ledger does not cover"),
        ({"quorum": 3, "expected": 2}, "quorum is 3, but only 2 parties are expected"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match="settings that do not fit together: ") as caught:
        config_of(tmp_path, **values)
    assert told in caught.value.message


def test_settings_that_fit_together_are_not_refused(tmp_path: Path) -> None:
    for values in (SECURE, PRIVATE, {"scaffold": True}, {"quorum": 2, "expected": 2}):
        config_of(tmp_path, **values)
