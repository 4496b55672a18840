"""The guess at a language."""

import pytest

from consilience.documents.language import guess_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("员工可以申请十二天年假。", "zh"),
        ("員工可以申請 annual leave 十二天。", "zh"),
        ("Staff may ask for 年假.", "en"),
        ("The café opens at nine.", "en"),
        ("これは日本語の文章です。", ""),
        ("Библиотека открыта.", ""),
        ("1234 — 5678", ""),
        ("", ""),
    ],
)
def test_scripts_decide(text: str, language: str) -> None:
    assert guess_language(text) == language
