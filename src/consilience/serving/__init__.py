"""Serving: a store and a model as an HTTP service with a page, and as an MCP server.

Names are handed on lazily: neither torch nor the web framework is loaded to read a config.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consilience.serving.app import create_app
    from consilience.serving.config import Limits, ServeConfig
    from consilience.serving.keys import KeyRing
    from consilience.serving.service import Service, open_service
    from consilience.serving.subjects import Subject, authorise

__all__ = [
    "KeyRing",
    "Limits",
    "ServeConfig",
    "Service",
    "Subject",
    "authorise",
    "create_app",
    "open_service",
]

_FILES = {
    "KeyRing": "keys",
    "Limits": "config",
    "ServeConfig": "config",
    "Service": "service",
    "Subject": "subjects",
    "authorise": "subjects",
    "create_app": "app",
    "open_service": "service",
}


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(import_module(f"consilience.serving.{_FILES[name]}"), name)
    raise AttributeError(f"module 'consilience.serving' has no attribute {name!r}")
