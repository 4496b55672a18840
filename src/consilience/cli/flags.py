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
from consilience.training.settings import Leaf, leaves

DEFAULT_STORE = Path("knowledge")

FusionName = Literal["sequence", "token", "fid", "attention", "average", "concat"]
"""As `consilience.model.fusion.Fusion`, which needs torch; a test compares them."""

ModeName = Literal["bm25", "dense", "hybrid"]
"""As `consilience.retrieval.Mode`, which needs an index engine; a test compares them."""

IndexName = Literal["auto", "exact", "codes", "ivf", "hnsw"]
"""As `consilience.retrieval.tuning.IndexName`; a test compares them."""

BackendName = Literal["torch", "openvino"]
"""As `consilience.encoding.backends.Backend`; a test compares them."""

StoreFlag = Annotated[Path, Option("--store", metavar="DIR", help="The knowledge base.")]
ModelFlag = Annotated[
    str | None,
    Option(
        "--model", metavar="NAME|DIR|HUB_ID", help="The model.", show_default="the one that ships"
    ),
]
EngineFlag = Annotated[
    str | None,
    Option(
        "--engine",
        metavar="URL",
        help="Search the copy that was published there instead of a knowledge base here.",
        show_default=False,
    ),
]
RerankFlag = Annotated[
    str | None,
    Option(
        "--rerank",
        metavar="NAME",
        help="Look at the first passages again: maxsim, prior, cross-encoder:MODEL, "
        "multi-vector:MODEL.",
        show_default=False,
    ),
]
PerContributorFlag = Annotated[
    int | None,
    Option(
        "--per-contributor",
        min=1,
        metavar="N",
        help="At most so many passages of each contributor.",
        show_default="no limit",
    ),
]
DiversityFlag = Annotated[
    float | None,
    Option(
        "--diversity",
        min=0,
        max=1,
        metavar="L",
        help="From 0 to 1: pass over passages that say what others said.",
        show_default=False,
    ),
]
QuoteFlag = Annotated[
    bool, Option("--quote", help="Answer with a stretch of a passage, word for word.")
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

WhereFlag = Annotated[
    list[str] | None,
    Option(
        "--where",
        metavar="FIELD=VALUE",
        help="Only documents with this source (a folder ends with /), contributor, language or "
        "metadata.KEY; may be repeated: values of one field are alternatives.",
        show_default="all documents",
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


def with_settings(verb: Verb, settings: type) -> Verb:
    """The verb with a flag for every setting of a config.

    Args:
        verb: Takes the flags that were given as `overrides`, by dotted key.
        settings: The class of the config, as `training.settings` reads it.
    """
    named = {f"set_{leaf.path.replace('.', '_')}": leaf for leaf in leaves(settings)}

    @functools.wraps(verb)
    def command(**values: Any) -> int:
        given = {leaf.path: values.pop(name, None) for name, leaf in named.items()}
        overrides = {path: value for path, value in given.items() if value is not None}
        return verb(**values, overrides=overrides)

    own = inspect.signature(verb, eval_str=True).parameters
    kept = [each for name, each in own.items() if name != "overrides"]
    flags = [_setting_flag(name, leaf) for name, leaf in named.items()]
    command.__signature__ = inspect.Signature([*kept, *flags])  # type: ignore[attr-defined]
    return command


def _setting_flag(name: str, leaf: Leaf) -> inspect.Parameter:
    """A flag for one setting; what it may be is checked with the file's, all at once."""
    option = Option(f"--{leaf.path}", help=leaf.setting.help, metavar="VALUE", show_default=False)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=Annotated[str | None, option])


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
