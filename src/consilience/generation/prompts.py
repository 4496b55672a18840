"""How a question and a passage are put into one text: a closed table of named functions.

A prompt knows characters, not tokens. What it makes is a `Wording`: the text with the passage apart
from the rest, so that whoever finds it too long cuts the passage and never the question.
"""

from collections.abc import Callable
from dataclasses import dataclass

from consilience.errors import UsageError
from consilience.generation.base import Pair
from consilience.text import language_of


@dataclass(frozen=True, slots=True)
class Wording:
    """A row as text.

    Attributes:
        before: What stands before the passage.
        passage: The passage.
        after: What stands after it.
    """

    before: str
    passage: str
    after: str

    def text(self, kept: int | None = None) -> str:
        """All of it, with the first `kept` characters of the passage, or with the whole."""
        return self.before + self.passage[:kept] + self.after


Prompt = Callable[[Pair], Wording]


def rag(pair: Pair, *, prefix: str = "") -> Wording:
    """`title / passage // question`, letter for letter as transformers' RAG writes it.

    Two spaces become one, and a title loses one quotation mark at either end.

    Args:
        pair: The row.
        prefix: Written first; `config.prefix` of some checkpoints.
    """
    title = pair.title.removeprefix('"').removesuffix('"')
    return _squeezed(Wording(f"{prefix}{title} / ", pair.passage, f" // {pair.question}"))


def _squeezed(wording: Wording) -> Wording:
    """Two spaces as one, in the text as a whole: they may stand on both sides of a seam."""
    raw, start = wording.text(), len(wording.before)
    ends = [len(raw[:end].replace("  ", " ")) for end in (start, start + len(wording.passage))]
    text = raw.replace("  ", " ")
    # A space that the seam shares stays when the passage is cut.
    passage = text[ends[0] : ends[1]].rstrip(" ")
    return Wording(text[: ends[0]], passage, text[ends[0] + len(passage) :])


def _question_context(pair: Pair) -> Wording:
    return Wording(f"question: {pair.question} context: ", pair.passage, "")


def _fid(pair: Pair) -> Wording:
    return Wording(f"question: {pair.question} title: {pair.title} context: ", pair.passage, "")


def _plain(pair: Pair) -> Wording:
    if language_of(pair.question) == "zh":
        title = f"标题：{pair.title}\n" if pair.title else ""
        return Wording(f"{title}段落：", pair.passage, f"\n问题：{pair.question}\n回答：")
    title = f"Title: {pair.title}\n" if pair.title else ""
    return Wording(f"{title}Passage: ", pair.passage, f"\nQuestion: {pair.question}\nAnswer:")


def _chat(pair: Pair) -> Wording:
    if language_of(pair.question) == "zh":
        title = f"标题：{pair.title}\n" if pair.title else ""
        told = "请根据下面的段落回答问题，只写答案，尽量简短。"
        return Wording(f"{told}\n\n{title}段落：", pair.passage, f"\n\n问题：{pair.question}")
    title = f"Title: {pair.title}\n" if pair.title else ""
    told = (
        "Answer the question from the passage below. Write the answer only, as short as it can be."
    )
    return Wording(f"{told}\n\n{title}Passage: ", pair.passage, f"\n\nQuestion: {pair.question}")


PROMPTS: dict[str, Prompt] = {
    "chat": _chat,
    "fid": _fid,
    "plain": _plain,
    "question-context": _question_context,
    "rag": rag,
}
"""`rag` is what Lewis et al. (2020) trained with, `fid` what Izacard and Grave (2021) did; `plain`
and `chat` are for decoder-only models, `chat` for the model's own template around it."""


def prompt_named(name: str) -> Prompt:
    """The prompt of a name.

    Raises:
        UsageError: A name that is not in the table.
    """
    if name not in PROMPTS:
        raise UsageError(
            f"unknown prompt {name!r}", hint=f"choose one of: {', '.join(sorted(PROMPTS))}"
        )
    return PROMPTS[name]
