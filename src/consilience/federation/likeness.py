"""Whether two places have the same model: one digest over all that an answer depends on."""

from consilience.errors import UsageError
from consilience.federation.recipe import tokenizer_fingerprint
from consilience.federation.travelling import weights_digest
from consilience.model.rag import Rag


def likeness(rag: Rag) -> str:
    """Digest of a model's weights, tokenizers and encoder, 32 hexadecimal digits.

    Weights count as float32, so that a machine that computes in sixteen bits has the same model.

    Raises:
        UsageError: It has no encoder, or its generator is behind an endpoint.
    """
    if rag.encoder is None:
        raise UsageError(
            "this model has no encoder, and scores of words cannot be compared between stores",
            hint="take a model with an encoder, such as the one that ships",
        )
    rest = f"{rag.encoder.fingerprint} {tokenizer_fingerprint(rag)}"
    return weights_digest(sorted(rag.model.named_parameters()), before=rest)
