import pytest

from consilience.text import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("谁可以申请？", "zh"),
        ("誰可以申請？", "zh"),
        ("如何配置 Kubernetes Ingress Controller 的 TLS", "zh"),
        ("Who may apply?", "en"),
        ("What does 合同 mean in a contract between two parties?", "en"),
        ("これはペンです", ""),
        ("いつ会議がありますか", ""),
        ("누가 신청할 수 있습니까", ""),
        ("Кто может подать заявку?", ""),
        ("123 + 456?", ""),
        ("", ""),
    ],
)
def test_language_of(text: str, language: str) -> None:
    assert language_of(text) == language
