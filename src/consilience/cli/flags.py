"""The flags that verbs share, and how dataclasses become flags.

A verb is a plain function; those of its parameters that are dataclasses stand for one flag per
field, so that the dataclass is the only place where a flag is named, typed, explained and given its
default. Knows nothing of what any verb does.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from typer import Option

from consilience.cli.messages import Language

DEFAULT_STORE = Path("knowledge")

FusionName = Literal["sequence", "token", "fid", "attention", "average", "concat"]
"""As `consilience.model.fusion.Fusion`, which needs torch; a test compares them."""

ModeName = Literal["bm25", "dense", "hybrid"]
"""As `consilience.retrieval.Mode`, which needs an index engine; a test compares them."""

StoreFlag = Annotated[Path, Option("--store", metavar="DIR", help="The knowledge base.")]
ModelFlag = Annotated[
    str | None,
    Option(
        "--model", metavar="NAME|DIR|HUB_ID", help="The model.", show_default="the one that ships"
    ),
]
AccessFlag = Annotated[
    list[str] | None,
    Option(
        "--access",
        metavar="LABEL",
        help="Read as someone who holds this label; may be repeated.",
        show_default="as the owner, who reads everything",
    ),
]


@dataclass(frozen=True, slots=True)
class Output:
    """How a verb speaks.

    Attributes:
        json: One JSON document on standard output instead of text.
        lang: The language of messages; None for the locale's.
    """

    json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False
    lang: Annotated[
        Language | None, Option("--lang", help="Language of messages.", show_default="the locale's")
    ] = None


Verb = Callable[..., int]


def flattened(verb: Verb) -> Verb:
    """The verb with every dataclass among its parameters replaced by the fields of that dataclass.

    Args:
        verb: A function whose parameters, and the fields of whose dataclasses, are annotated the
            way typer reads them. No two of all these names may be the same.

    Returns:
        A function of keyword parameters that puts the dataclasses together and calls `verb`.
    """
    signature = inspect.signature(verb, eval_str=True)
    groups = {p.name: p.annotation for p in signature.parameters.values() if _is_group(p)}

    @functools.wraps(verb)
    def command(**values: Any) -> int:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return verb(**values)

    flat = [new for old in signature.parameters.values() for new in _expanded(old)]
    command.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return command


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)


def _expanded(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    if not _is_group(parameter):
        yield parameter.replace(kind=keyword)
        return
    hints = get_type_hints(parameter.annotation, include_extras=True)
    for field in fields(parameter.annotation):
        yield inspect.Parameter(
            field.name, keyword, default=_default(field), annotation=hints[field.name]
        )


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
