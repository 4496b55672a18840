"""`consilience serve`: a store and a model as a page and an HTTP service, or as tools for agents.

Every key of the config is also a flag of the same name, declared once in `serving.config`. Flags
win over the file. Standard output has the address and nothing else; the log goes to standard error.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from consilience.cli.flags import Output
from consilience.cli.opening import key_flags
from consilience.cli.screen import Screen
from consilience.errors import DependencyError, UsageError
from consilience.serving.config import DEFAULT_CONFIG, ServeConfig
from consilience.serving.memory import giving_back, share_arenas
from consilience.training.settings import merged as nested
from consilience.training.settings import parse_settings, read_settings

if TYPE_CHECKING:
    from consilience.serving.service import Service

EXAMPLES = (
    "consilience serve",
    "consilience serve serve.yaml --port 8200 --lang zh",
    "consilience serve --store 规章制度库 --mcp",
)


def serve(
    config: Annotated[
        Path | None, Argument(metavar="[CONFIG]", show_default=str(DEFAULT_CONFIG))
    ] = None,
    *,
    mcp: Annotated[
        bool, Option("--mcp", help="Serve agents on standard input and output instead.")
    ] = False,
    output: Output,
    overrides: dict[str, str],
) -> int:
    """Serve the knowledge base: a page, an HTTP API, or tools for agents.

    CONFIG is a YAML file, and every key of it is a flag too, which wins. Only this machine reaches
    the server, unless --host says otherwise, and that needs a key.
    """
    screen = Screen(output)
    path = config or DEFAULT_CONFIG
    settings = _settings(path, overrides, asked=config is not None)
    require_packages()
    share_arenas()  # before there are threads
    with giving_back():
        if mcp:
            _serve_agents(settings, screen)
            return 0
        require_key(settings)
        _serve_people(settings, path, overrides, screen)
    return 0


def _settings(path: Path, overrides: dict[str, str], *, asked: bool) -> ServeConfig:
    if asked or path.exists():
        return read_settings(ServeConfig, path, overrides, verb="serve")
    values = nested({}, overrides)
    return parse_settings(ServeConfig, values, source="the flags", verb="serve")


def require_packages() -> None:
    """Refuse before anything is loaded when an optional package is missing.

    Raises:
        DependencyError: One is.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"serving needs the package {error.name}", hint="pip install 'consilience[serve]'"
        ) from error


def require_key(settings: ServeConfig) -> None:
    """Refuse to be reached from other machines when anyone may come in.

    Raises:
        UsageError: The host is not this machine alone, and there is no key.
    """
    from consilience.serving.keys import KeyRing

    if settings.loopback or KeyRing(settings.key_path).list():
        return
    flags = key_flags(settings.store, settings.keys)
    raise UsageError(
        f"other machines reach {settings.host}, and there is no key yet",
        hint=" ".join(["consilience keys create admin --scope admin", *flags]),
    )


def _serve_agents(settings: ServeConfig, screen: Screen) -> None:
    from consilience.serving.mcp import run_stdio

    service = _opened(settings, DEFAULT_CONFIG, {}, screen)
    try:
        run_stdio(service)
    finally:
        service.close()


def _serve_people(
    settings: ServeConfig, path: Path, overrides: dict[str, Any], screen: Screen
) -> None:
    from consilience.serving import running

    listener = running.listen(settings)
    address = running.address_of(settings, listener)
    service = _opened(settings, path, overrides, screen)
    running.run(service, listener, ready=lambda: _tell(address, service, screen))


def _opened(
    settings: ServeConfig, path: Path, overrides: dict[str, Any], screen: Screen
) -> "Service":
    from consilience.serving.service import open_service

    with screen.working(screen.words.loading):
        return open_service(settings, path=path, overrides=overrides)


def _tell(address: str, service: "Service", screen: Screen) -> None:
    """Say where it is; whoever started it may be waiting for this line."""
    if screen.json:
        found = {"address": address, "store": str(service.store.path), "model": service.model_name}
        screen.document(found)
    else:
        screen.line((screen.words.serving.format(address=address), "bold"))
        screen.line((screen.words.how_to_stop, "dim"))
    screen.flush()
