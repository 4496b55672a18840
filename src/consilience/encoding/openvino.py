"""An encoder whose layers OpenVINO runs: the same vectors, from compiled kernels.

The layers are traced in float32 and compiled when the first text comes; on a processor that
multiplies bfloat16 they run in it, as torch's do there. The vectors are those of torch to four
decimals (tested), fewer than the sixteen bits of a store keep, so the fingerprint is the same and a
store may hold vectors of both. Eight-bit integers are another matter, and not offered: see
`docs/decisions/0019-vectors-in-files.md`.

The frontend is called as it is, not through `openvino.convert_model`, which would report its use to
a server of its makers.
"""

import copy
import threading
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from consilience.encoding.base import Encoder, Side, Vectors
from consilience.encoding.bert import EncoderStack, mean_pool, padding_bias
from consilience.encoding.compact import CompactEncoder, fastest_dtype, like_lengths
from consilience.errors import UsageError

_TOKENS = 512  # that are computed at a time; more of them leave the processor's caches


@runtime_checkable
class TwoTowers(Protocol):
    """An encoder made of two modules, each from `[rows, length]` ids and mask to vectors."""

    @property
    def questions(self) -> nn.Module:
        """The module of questions."""
        ...

    @property
    def passages(self) -> nn.Module:
        """The module of passages; it may be the same."""
        ...

    def token_rows(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask of texts, `[texts, length]` each."""
        ...


class CompactTower(nn.Module):
    """One side of a `CompactEncoder`: `[rows, length]` ids and mask to `[rows, hidden]`."""

    def __init__(self, encoder: CompactEncoder, layers: EncoderStack) -> None:
        super().__init__()
        self.embeddings, self.layers = encoder.embeddings, layers

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors."""
        states, bias = self.embeddings(ids, torch.zeros_like(ids)), padding_bias(mask)
        # One by one: the stack takes texts end to end, whose number and lengths a trace would keep.
        for layer in self.layers.layer:
            states = layer(states, bias)
        return mean_pool(states, mask.bool())


class OpenVinoEncoder:
    """Implements `Encoder` with another encoder's layers. Threads may share it.

    Args:
        encoder: A `CompactEncoder`, or one of two towers.

    Raises:
        UsageError: An encoder of another kind.
    """

    def __init__(self, encoder: Encoder) -> None:
        if not isinstance(encoder, CompactEncoder | TwoTowers):
            raise UsageError(
                f"OpenVINO cannot take an encoder of the kind {type(encoder).__name__}",
                hint="Leave out the backend, or take a model of this package or of transformers.",
            )
        self._encoder, self._lock = encoder, threading.Lock()
        self._compiled: dict[Side, Any] = {}
        self.fingerprint: str = encoder.fingerprint
        self.dimension: int = encoder.dimension

    def encode_questions(self, questions: Sequence[str]) -> Vectors:
        """`[questions, dimension]`."""
        return self._encode(questions, "questions")

    def encode_passages(self, passages: Sequence[str]) -> Vectors:
        """`[passages, dimension]`; text past the window is not read."""
        return self._encode(passages, "passages")

    def _encode(self, texts: Sequence[str], side: Side) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        request = self._layers(side).create_infer_request()
        ids, mask = (rows.cpu().long().numpy() for rows in self._encoder.token_rows(texts))
        lengths = mask.sum(1).tolist()
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for batch in like_lengths(lengths, _TOKENS):
            longest = lengths[batch[-1]]
            vectors[batch] = request.infer([ids[batch, :longest], mask[batch, :longest]])[0]
        return vectors

    def _layers(self, side: Side) -> Any:
        """The compiled layers of one side; both may be the same ones."""
        with self._lock:
            other: Side = "questions" if side == "passages" else "passages"
            if side not in self._compiled and self._is_shared() and other in self._compiled:
                self._compiled[side] = self._compiled[other]
            if side not in self._compiled:
                self._compiled[side] = compiled(self._tower(side))
            return self._compiled[side]

    def _is_shared(self) -> bool:
        encoder = self._encoder
        if isinstance(encoder, CompactEncoder):
            return encoder.asking is encoder.layers
        return encoder.questions is encoder.passages

    def _tower(self, side: Side) -> nn.Module:
        encoder = self._encoder
        if isinstance(encoder, CompactEncoder):
            layers = encoder.asking if side == "questions" else encoder.layers
            return CompactTower(encoder, layers)
        return encoder.questions if side == "questions" else encoder.passages


def compiled(tower: nn.Module) -> Any:
    """OpenVINO's form of a module of ids and mask, for as many threads as torch has."""
    import openvino  # type: ignore[import-untyped]

    wide = fastest_dtype() == torch.float32
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if wide else "bf16",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return openvino.Core().compile_model(_traced(tower), "CPU", settings)


def _traced(tower: nn.Module) -> Any:
    from openvino.frontend import FrontEndManager  # type: ignore[import-untyped]
    from openvino.frontend.pytorch.ts_decoder import (  # type: ignore[import-untyped]
        TorchScriptPythonDecoder,
    )

    module = copy.deepcopy(tower).cpu().float().eval()
    example = torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    with warnings.catch_warnings(), torch.no_grad():
        # What tracing warns of are the sizes of heads, which never change.
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(module, example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))
