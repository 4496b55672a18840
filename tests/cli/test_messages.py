import string
from dataclasses import asdict

import pytest

from consilience.cli.messages import CHINESE, ENGLISH, language_of_locale


def placeholders(message: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(message) if name}


def test_both_languages_fill_in_the_same_placeholders() -> None:
    chinese = asdict(CHINESE)
    for name, message in asdict(ENGLISH).items():
        assert placeholders(message) == placeholders(chinese[name]), name


def test_every_sentence_is_translated() -> None:
    same = {name for name, text in asdict(ENGLISH).items() if text == asdict(CHINESE)[name]}
    assert same == {"failed"}  # path and reason alone


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
        ({"LANG": "C", "LC_MESSAGES": "zh_SG"}, "zh"),
    ],
)
def test_the_locale_chooses_as_posix_says(environment: dict[str, str], language: str) -> None:
    assert language_of_locale(environment) == language
