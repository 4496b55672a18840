"""What the server says about each kind of error, in English and in Chinese.

A sentence for everyone who meets an error, whatever raised it; what exactly was wrong is in the
message beside it, which stays English. Knows nothing of requests but the header of languages.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Language = Literal["en", "zh"]

ENGLISH: Mapping[str, str] = MappingProxyType(
    {
        "error": "The server could not do this, as when a disk is full. Nothing was changed.",
        "internal": "This is a mistake of the server. Nothing was changed.",
        "usage": "The request is not one that the server understands; the message says which part.",
        "missing": "There is no such thing here, or none that you may read.",
        "damaged": "A file of the server is damaged, so nothing is answered from it.",
        "version": "A newer version of the program wrote the knowledge base or the model.",
        "fingerprint": "The knowledge base was made with another model than the one in use.",
        "document": "The document cannot be read.",
        "dependency": "The server lacks an optional package that this needs.",
        "busy": "Something else is being changed at this moment. Try again.",
        "remote": "A service that the server relies on failed.",
        "unauthenticated": "A valid key is needed: send it as `Authorization: Bearer KEY`.",
        "forbidden": "Your key may not do this.",
        "too_large": "The request is larger than the server accepts.",
        "slow": "The request did not arrive in time.",
        "rate": "There were too many requests with this key. Wait, then try again.",
        "overloaded": "The server has as much to do as it can. Wait, then try again.",
        "stopped": "The question was stopped before it was answered.",
    }
)

CHINESE: Mapping[str, str] = MappingProxyType(
    {
        "error": "服务器无法完成这个操作，例如磁盘已满。没有任何改动。",
        "internal": "这是服务器自身的错误。没有任何改动。",
        "usage": "服务器不理解这个请求；message 一栏说明是哪一部分。",
        "missing": "这里没有这个对象，或者您无权读取。",
        "damaged": "服务器上的一个文件已损坏，因此不会用它作答。",
        "version": "知识库或模型由更新版本的程序写成。",
        "fingerprint": "知识库所用的模型与现在使用的模型不同。",
        "document": "无法读取这份文档。",
        "dependency": "服务器缺少这项功能所需的可选软件包。",
        "busy": "此刻正有其他改动在进行，请再试一次。",
        "remote": "服务器依赖的另一项服务出错了。",
        "unauthenticated": "需要有效的密钥：请以 `Authorization: Bearer 密钥` 的形式发送。",
        "forbidden": "您的密钥无权做这件事。",
        "too_large": "请求超过了服务器接受的大小。",
        "slow": "请求没有及时传完。",
        "rate": "用这个密钥发出的请求太多，请稍后再试。",
        "overloaded": "服务器已满负荷，请稍后再试。",
        "stopped": "这个问题在作答之前被停止了。",
    }
)

EXPLANATIONS: Mapping[Language, Mapping[str, str]] = MappingProxyType(
    {"en": ENGLISH, "zh": CHINESE}
)

_TO_OPERATOR: Mapping[Language, tuple[str, str]] = MappingProxyType(
    {
        "en": ("the server could not do this", "ask its operator for request {id} in the log"),
        "zh": ("服务器无法完成这个操作", "请运维人员在日志中查找请求 {id}"),
    }
)


def explanation(kind: str, language: Language) -> str:
    """The sentence about a kind of error; one that is not known is explained as the root is."""
    words = EXPLANATIONS[language]
    return words.get(kind, words["error"])


def told_to_operator(language: Language, request_id: str) -> tuple[str, str]:
    """Message and hint for those who may not read about the server's own files."""
    message, hint = _TO_OPERATOR[language]
    return message, hint.format(id=request_id)


def language_of_header(header: str) -> Language:
    """The language that an `Accept-Language` header puts first among ours; English without one."""
    asked = [_weighed(part) for part in header[:200].split(",")]
    ours = [(weight, tag) for weight, tag in asked if tag in ("en", "zh") and weight > 0]
    if not ours:
        return "en"
    best = max(ours, key=lambda one: one[0])[1]
    return "zh" if best == "zh" else "en"


def _weighed(part: str) -> tuple[float, str]:
    """One language of the header as its weight and its two letters."""
    tag, _, quality = part.strip().lower().partition(";")
    try:
        weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
    except ValueError:
        weight = 0.0
    return weight, tag.strip().partition("-")[0]
