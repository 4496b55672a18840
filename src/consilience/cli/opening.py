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
    from consilience.retrieval.engines import Copy
    from consilience.store import Store, Where


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


def checked_filter(conditions: list[str] | None) -> "Where | None":
    """What `--where` asks for; None for all documents. Raises as `Where.parse`."""
    if not conditions:
        return None
    from consilience.store import Where

    return Where.parse(conditions)


def open_store(path: Path) -> "Store":
    """An existing store, for reading and for removing. Raises as `Store.open`."""
    from consilience.store import Store

    return Store.open(path, create=False)


def open_searched(path: Path, engine: str | None) -> "Store | Copy":
    """What is searched: an existing store, or the copy at a URL.

    Raises:
        UsageError: Both are given, or the URL is none. Else as `Store.open` and `Copy.open`.
    """
    if engine is None:
        return open_store(path)
    if path != DEFAULT_STORE:
        raise UsageError("--engine and --store were both given", hint="search the one or the other")
    from consilience.retrieval.engines import Copy

    return Copy.open(engine)


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


def key_flags(store: Path, keys: Path | None) -> list[str]:
    """The flags that make `consilience keys` go to the file of keys that a server reads."""
    named = [] if keys is None else ["--keys", str(keys)]
    return [*again(store), *named]
