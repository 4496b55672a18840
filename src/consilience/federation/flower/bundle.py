"""The one app that may run: the files of `app` as they are installed here, as Flower packs them."""

import hashlib
import warnings
from importlib.resources import files
from pathlib import Path

from flwr.cli.build import build_fab_from_disk


def bundle() -> bytes:
    """The app; the same files make the same bytes on every machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a package that Flower uses
        return build_fab_from_disk(Path(str(files("consilience.federation.flower") / "app")))


def digest(packed: bytes) -> str:
    """SHA-256, which Flower names an app by."""
    return hashlib.sha256(packed).hexdigest()
