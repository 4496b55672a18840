"""What a verb needs before it can begin: a question, an existing store, a model.

Each is checked in the order of its cost, so that a mistake is told before torch is loaded.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from consilience.cli.flags import DEFAULT_STORE
from consilience.errors import UsageError

if TYPE_CHECKING:
    from consilience.encoding import Encoder
    from consilience.model import Rag
    from consilience.store import Store


def checked_question(question: str) -> str:
    """The question as it was given.

    Raises:
        UsageError: It is empty, or not text.
    """
    if not question.strip():
        raise UsageError("the question is empty", hint='ask something: consilience ask "…"')
    if not question.isascii() and any("\ud800" <= character <= "\udfff" for character in question):
        raise UsageError(
            f"the question is not valid text: {question!r}",
            hint="set the terminal's encoding to UTF-8 and type the question again",
        )
    return question


def open_store(path: Path) -> "Store":
    """An existing store, for reading and for removing. Raises as `Store.open`."""
    from consilience.store import Store

    return Store.open(path, create=False)


def load_rag(model: str | None) -> "Rag":
    """The model named, or the one that ships. Raises as `Rag.load`."""
    from consilience.model import Rag

    return Rag.load(model)


def load_named_encoder(model: str | None) -> "Encoder":
    """The retriever's half of a model. Raises as `consilience.model.loading.load_any_encoder`."""
    from consilience.model.loading import load_any_encoder

    return load_any_encoder(model)


def again(store: Path, model: str | None = None) -> list[str]:
    """The flags that make a further command go to the same store and model."""
    flags = [] if store == DEFAULT_STORE else ["--store", str(store)]
    return flags if model is None else [*flags, "--model", model]
