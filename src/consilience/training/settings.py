"""Typed settings: one dataclass is the only declaration, everything else is derived from it.

A settings class is a frozen dataclass whose fields are annotated `Annotated[type, Setting(...)]`.
From it come the reading of YAML and JSON with every mistake reported at once, the flags of a
command (`leaves`), the help, and the JSON form. It knows types and bounds and refuses to know what
any setting means.
"""

import difflib
import json
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from consilience.errors import MissingError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting beyond its type.

    Attributes:
        help: One sentence in English.
        zh: The same in Chinese.
        least: The smallest number allowed.
        most: The largest number allowed.
    """

    help: str
    zh: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting that is not a group of others.

    Attributes:
        path: Its key, groups joined by dots.
        kind: Its type without the annotation.
        setting: Its help and bounds.
        default: Its default, or None with `required`.
        required: Whether it must be given.
    """

    path: str
    kind: Any
    setting: Setting
    default: Any
    required: bool


def leaves(cls: type, prefix: str = "") -> Iterator[Leaf]:
    """Every setting of a class, groups opened, in the order they are written."""
    for field, kind, setting in _declared(cls):
        path = f"{prefix}{field.name}"
        if is_dataclass(kind):
            yield from leaves(_as_class(kind), f"{path}.")
        else:
            default = _default(field)
            required = default is MISSING
            yield Leaf(path, kind, setting, None if required else default, required)


def read_settings(
    cls: type[T],
    path: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    verb: str = "train",
) -> T:
    """Read a YAML or JSON file as settings.

    Args:
        cls: The settings class.
        path: The file.
        overrides: Values by dotted key that take the place of the file's; strings are parsed as
            YAML would.
        verb: Of the command line, whose help lists the keys.

    Raises:
        MissingError: There is no such file.
        UsageError: It is not YAML, or holds mistakes; the message lists all of them, each with its
            key and what is allowed.
    """
    import yaml

    if not path.is_file():
        raise MissingError(f"no config file {str(path)!r}", hint="name a YAML or JSON file")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not YAML: {' '.join(str(error).split())}", hint="mend the line it names"
        ) from error
    if not isinstance(found, Mapping):
        raise UsageError(
            f"{path} holds {type(found).__name__}, not settings", hint="write lines of `key: value`"
        )
    return parse_settings(cls, merged(found, overrides or {}), source=str(path), verb=verb)


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others put in at dotted keys."""
    found = json.loads(json.dumps(values, default=str))
    for path, value in overrides.items():
        *groups, name = path.split(".")
        place = found
        for group in groups:
            if not isinstance(place.get(group), dict):
                place[group] = {}
            place = place[group]
        place[name] = value
    return dict(found)


def parse_settings(
    cls: type[T], values: Mapping[str, Any], *, source: str, verb: str = "train"
) -> T:
    """Check values against a settings class and build it.

    Args:
        cls: The settings class.
        values: By key, groups as mappings.
        source: Where they come from, for people.
        verb: Of the command line, whose help lists the keys.

    Raises:
        UsageError: With every mistake that there is.
    """
    mistakes: list[str] = []
    built = _build(cls, values, "", mistakes)
    if mistakes:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UsageError(
            f"{count} in {source}: " + "; ".join(mistakes),
            hint=f"consilience {verb} --help lists every key",
        )
    return built  # type: ignore[no-any-return]


def as_json(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    return found


def differences(
    cls: type, old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Settings that are not the same in two JSON forms, each by its dotted key with both values.

    What one of them does not name has its default there, as a setting has that is younger than a
    form. What is no setting any more is None in the form that does not name it.
    """
    defaults = {
        leaf.path: json.loads(json.dumps(leaf.default, default=str)) for leaf in leaves(cls)
    }
    was, now = (defaults | dict(_opened(form, defaults)) for form in (old, new))
    return {
        path: (was.get(path), now.get(path)) for path in was | now if was.get(path) != now.get(path)
    }


def told_differences(found: Mapping[str, tuple[Any, Any]]) -> str:
    """For people: each setting with what it was and what it is now."""
    return "; ".join(
        f"{key} was {_as_written(was)}, now {_as_written(now)}"
        for key, (was, now) in sorted(found.items())
    )


def _as_written(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _opened(form: Mapping[str, Any], known: Collection[str], prefix: str = "") -> Iterator[Any]:
    """The dotted keys of a JSON form with their values, groups opened."""
    for key, value in form.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in known:
            yield from _opened(value, known, f"{path}.")
        else:
            yield path, value


def _build(cls: type, values: Mapping[str, Any], prefix: str, mistakes: list[str]) -> Any:
    declared = {field.name: (field, kind, setting) for field, kind, setting in _declared(cls)}
    mistakes += [_unknown(prefix, key, declared) for key in values if key not in declared]
    arguments = {}
    for name, (field, kind, setting) in declared.items():
        path = f"{prefix}{name}"
        if name not in values:
            if _default(field) is MISSING:
                mistakes.append(f"{path} is missing ({allowed(kind, setting)})")
            continue
        if is_dataclass(kind) and isinstance(values[name], Mapping):
            arguments[name] = _build(_as_class(kind), values[name], f"{path}.", mistakes)
        else:
            arguments[name] = _value(path, kind, setting, values[name], mistakes)
    return None if mistakes else cls(**arguments)


def _value(path: str, kind: Any, setting: Setting, value: Any, mistakes: list[str]) -> Any:
    try:
        found = _as_kind(kind, value)
    except (TypeError, ValueError):
        mistakes.append(f"{path} is {value!r}, allowed: {allowed(kind, setting)}")
        return None
    numbers = found.values() if isinstance(found, dict) else (found,)
    for number in numbers:
        if _outside(number, setting):
            mistakes.append(f"{path} is {value!r}, allowed: {allowed(kind, setting)}")
            break
    return found


def _outside(number: Any, setting: Setting) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    below = setting.least is not None and not number >= setting.least
    above = setting.most is not None and not number <= setting.most
    return below or above


def _as_kind(kind: Any, value: Any) -> Any:
    """A value as a type says; raises TypeError or ValueError when it is not."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _as_either(parts, value)
    if origin is Literal:
        return _one_of(parts, value)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, Sequence):
            raise TypeError
        return tuple(_as_kind(parts[0], one) for one in items if one != "")
    if origin is dict:
        return _as_table(parts, value)
    return _as_plain(kind, value)


def _as_either(parts: Sequence[Any], value: Any) -> Any:
    if value is None or value in ("none", "null"):
        if type(None) in parts:
            return None
        raise TypeError
    return _as_kind(next(part for part in parts if part is not type(None)), value)


def _one_of(parts: Sequence[Any], value: Any) -> Any:
    if value not in parts:
        raise ValueError
    return value


def _as_table(parts: Sequence[Any], value: Any) -> dict[Any, Any]:
    if isinstance(value, str):
        pairs = (one.partition("=") for one in value.split(",") if one)
        value = {name: number or "1" for name, _, number in pairs}
    if not isinstance(value, Mapping):
        raise TypeError
    return {_as_kind(parts[0], k): _as_kind(parts[1], v) for k, v in value.items()}


_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _as_plain(kind: Any, value: Any) -> Any:
    if kind is bool:
        if isinstance(value, str) and value.lower() in _TRUTHS:
            return _TRUTHS[value.lower()]
        if not isinstance(value, bool):
            raise TypeError
        return value
    if isinstance(value, bool) or value is None:
        raise TypeError
    if kind is int:
        return _whole(value)
    if kind is float:
        return float(value)
    if kind is Path:
        return Path(str(value)).expanduser()
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    number = float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def allowed(kind: Any, setting: Setting) -> str:
    """What a setting may be, for people."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(part for part in parts if part is not type(None))
        return f"{allowed(inner, setting)}, or none"
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin is tuple:
        return f"a list of {allowed(parts[0], setting)}"
    if origin is dict:
        return f"a table of {allowed(parts[0], Setting('', ''))} to {allowed(parts[1], setting)}"
    words = {bool: "true | false", int: "a whole number", float: "a number", str: "text"}
    named = words.get(kind, "a path" if kind is Path else "settings of its own")
    return f"{named}{_bounds(setting)}" if kind in (int, float) else named


def _bounds(setting: Setting) -> str:
    least = "" if setting.least is None else f" from {setting.least:g}"
    most = "" if setting.most is None else f" to {setting.most:g}"
    return least + most


def _unknown(prefix: str, key: Any, declared: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(key), declared, n=1)
    if near:
        return f"{prefix}{key} is no setting; did you mean {prefix}{near[0]}?"
    return f"{prefix}{key} is no setting, allowed: {', '.join(declared)}"


def _declared(cls: type) -> Iterator[tuple[Field[Any], Any, Setting]]:
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        annotated = hints[field.name]
        if get_origin(annotated) is not Annotated:
            raise TypeError(f"{cls.__name__}.{field.name} is not annotated with a Setting")
        kind, setting = get_args(annotated)
        yield field, kind, setting


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def _as_class(kind: Any) -> type:
    if not isinstance(kind, type):
        raise TypeError(f"{kind} is no class")
    return kind
