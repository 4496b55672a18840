"""The settings drawer: the config file as a form shows it, checked and written back whole.

What is shown are the values in effect; a flag wins over the file and is told as one that does. Only
limits can change while the server runs. Where its files are and where it listens is for whoever is
on its machine, as a name of a file is a way to read it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from consilience.errors import ConsilienceError, UsageError
from consilience.serving.config import ServeConfig
from consilience.serving.errors import ForbiddenError
from consilience.serving.files import write_whole
from consilience.serving.service import Service
from consilience.serving.subjects import OWNER, Subject
from consilience.training.settings import Leaf, allowed, as_json, leaves, merged, parse_settings

AT_ONCE = "limits."
"""What the keys begin with that take effect without a restart."""

FREE = ("limits.", "grace")
"""What the keys begin with that an admin may change from elsewhere."""


def shown(service: Service) -> dict[str, Any]:
    """Every setting with its value in effect, and where it comes from; blocks."""
    told = _flat(as_json(service.config))
    filed = _flat(_read(service.path))
    return {
        "path": str(service.path.absolute()),
        "settings": [_shown(leaf, told, filed, service) for leaf in leaves(ServeConfig)],
    }


def change(service: Service, subject: Subject, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write values into the config file and let those take effect that can; blocks.

    Args:
        service: Whose settings.
        subject: Who changes them.
        values: By dotted key; None puts a setting back to its default.

    Raises:
        UsageError: With every mistake that there is; nothing is written.
        ForbiddenError: Another machine changes where files are.
    """
    _check_who(subject, values)
    _check_keys(values)
    file = _with(_read(service.path), values)
    parse_settings(ServeConfig, file, source="the settings", verb="serve")
    config = parse_settings(
        ServeConfig, merged(file, service.overrides), source="the settings", verb="serve"
    )
    _write(service.path, file)
    service.config = replace(service.config, limits=config.limits, grace=config.grace)
    service.gates.resize(config.limits)
    service.desk.limits = replace(
        service.desk.limits, concurrent=config.limits.asks, waiting=config.limits.waiting
    )
    return shown(service)


def _check_who(subject: Subject, values: Mapping[str, Any]) -> None:
    kept = sorted(key for key in values if not key.startswith(FREE))
    if kept and subject != OWNER:
        raise ForbiddenError(
            f"{', '.join(kept)[:200]} can be changed on the server's own machine only",
            hint="change them in the config file, and restart the server",
        )


def _check_keys(values: Mapping[str, Any]) -> None:
    """Keys that are no setting, which as dotted ones would be told as groups."""
    known = {leaf.path for leaf in leaves(ServeConfig)}
    unknown = sorted(key[:100] for key in values if key not in known)
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)} is no setting", hint=f"one of: {', '.join(sorted(known))}"
        )


def _with(file: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the file with values put in, and those left out that are None."""
    kept = {key: value for key, value in (_flat(file) | dict(values)).items() if value is not None}
    return merged({}, kept)


def _shown(
    leaf: Leaf, told: Mapping[str, Any], filed: Mapping[str, Any], service: Service
) -> dict[str, Any]:
    return {
        "key": leaf.path,
        "value": told[leaf.path],
        "default": None if leaf.default is None else as_plain(leaf.default),
        "file": filed.get(leaf.path),
        "flag": leaf.path in service.overrides,
        "restart": not leaf.path.startswith((AT_ONCE, "grace")),
        "allowed": allowed(leaf.kind, leaf.setting),
        "least": leaf.setting.least,
        "most": leaf.setting.most,
        "help": {"en": leaf.setting.help, "zh": leaf.setting.zh},
    }


def as_plain(value: Any) -> Any:
    """A default as JSON has it."""
    return str(value) if isinstance(value, Path) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        found |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def _read(path: Path) -> dict[str, Any]:
    """What the file holds; nothing where there is none."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConsilienceError(
            f"{path} cannot be read as YAML", hint=f"mend {path}, or move it away"
        ) from error
    return dict(found) if isinstance(found, Mapping) else {}


def _write(path: Path, file: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(file), allow_unicode=True, sort_keys=False)
    try:
        write_whole(path, text)
    except OSError as error:
        raise ConsilienceError(
            f"{path} cannot be written: {error.strerror}", hint=f"check the permissions of {path}"
        ) from error
