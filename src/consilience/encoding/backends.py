"""What computes an encoder's vectors: torch, or OpenVINO where its package is installed.

The names are a closed table. Nothing is imported before its name is asked for.
"""

from importlib.util import find_spec
from typing import Literal

from consilience.encoding.base import Encoder
from consilience.errors import DependencyError, UsageError

Backend = Literal["torch", "openvino"]


def on_backend(encoder: Encoder, backend: Backend) -> Encoder:
    """The encoder with its vectors computed by `backend`; its vectors can be mixed with the old.

    Args:
        encoder: One of torch's.
        backend: `torch` changes nothing.

    Raises:
        DependencyError: The package of the backend is not installed.
        UsageError: There is no such backend, or it cannot take this encoder.
    """
    if backend == "torch":
        return encoder
    if backend != "openvino":
        raise UsageError(
            f"there is no encoder backend {backend!r}", hint="One of: torch, openvino."
        )
    if find_spec("openvino") is None:
        raise DependencyError(
            "the encoder backend openvino needs a package that is not installed",
            hint="pip install 'consilience[openvino]'",
        )
    from consilience.encoding.openvino import OpenVinoEncoder

    return OpenVinoEncoder(encoder)
