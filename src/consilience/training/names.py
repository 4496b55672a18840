"""What a config calls things: what is learned, what moves, and which of them belong together."""

from collections.abc import Mapping
from typing import Literal, get_args

ObjectiveName = Literal[
    "sequence",
    "token",
    "emdr2",
    "perplexity",
    "attention",
    "leave_one_out",
    "fid",
    "average",
    "attention_fusion",
    "concat",
    "reader",
    "info_nce",
    "abstain",
    "distil",
    "distil_posterior",
    "distil_states",
    "margin_mse",
    "kl",
    "inverse_cloze",
    "crops",
    "mlm",
    "nsp",
    "span_corruption",
    "continuation",
    "recurring_spans",
    "salient_spans",
]
"""What is learned, by the name it has in a config."""

OF_ENCODERS: frozenset[str] = frozenset({"inverse_cloze", "crops", "mlm", "nsp"})
"""Objectives that teach encoders from plain text."""

PLAIN: frozenset[str] = OF_ENCODERS | {
    "span_corruption",
    "continuation",
    "recurring_spans",
    "salient_spans",
}
"""Objectives that learn from plain text; those that teach no encoder teach the generator."""

RANKED: frozenset[str] = frozenset({"margin_mse", "kl"})
"""Objectives that draw the retriever to a teacher's ranking of passages."""

CONTRASTIVE: frozenset[str] = frozenset({"info_nce", "inverse_cloze", "crops"})
"""Objectives that tell texts of a batch apart, which can be done in chunks."""

TAUGHT: frozenset[str] = frozenset({"distil", "distil_posterior", "distil_states"})
"""Objectives that learn from a teacher, over the passages that the teacher proposes."""

PRIOR: frozenset[str] = frozenset(
    {"sequence", "token", "emdr2", "perplexity", "attention", "leave_one_out"}
)
"""Objectives whose gradient reaches the scores that passages were found by."""

JOINT: frozenset[str] = TAUGHT | PRIOR | {"fid", "average", "attention_fusion", "concat"}
"""Objectives that sum over retrieved passages and so need a store."""

Part = Literal[
    "question_encoder",
    "passage_encoder",
    "generator",
    "temperature",
    "hybrid_weights",
    "attention",
    "ranks",
]
PARTS: tuple[Part, ...] = get_args(Part)

LIKELY: frozenset[str] = frozenset(
    {"sequence", "token", "average", "fid", "attention_fusion", "concat", "reader"}
)
"""Objectives that make the answer likely and nothing else, whose labels can be smoothed."""

OWN: Mapping[Part, ObjectiveName] = {"attention": "attention_fusion", "ranks": "average"}
"""What a fusion has of its own to learn, and the objective that teaches it."""
