r"""A reranker of your own: a cross-encoder, or an encoder of many vectors, from questions of yours.

    pip install 'consilience[rerank]'
    python recipes/rerankers/train.py cross-encoder train.jsonl --store knowledge --start MODEL \
        --out reranker --dev dev.jsonl
    consilience search "who may apply" --rerank cross-encoder:reranker

Each question is asked of the knowledge base. What it finds and is not right is a hard negative, and
the model learns to score the right passage above them (softmax over the passages of a question).
MODEL is a folder with any encoder of transformers, or a reranker that is to learn more. What is
right says the question: `positive_ids`, else its `context`, else its answers.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.scoring import colbert_scores_pairwise
from torch import Tensor

from consilience.documents import Passage
from consilience.evaluation.ranking import recall_at, reciprocal_rank_at
from consilience.evaluation.tuning import gold_in
from consilience.questions import Question, read_questions
from consilience.retrieval import Retriever, open_retriever
from consilience.retrieval.reranking import Reranked, open_reranker
from consilience.store import Store
from consilience.store.embedding import embedding_text
from consilience.training.objectives import info_nce

KINDS = ("cross-encoder", "multi-vector")
MINED = 50
"""How deep right and wrong passages are looked for."""

Scorer = Callable[[list[str], list[str]], Tensor]
"""Scores of pairs of a question and a passage, `[pairs]`, with a gradient."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question, the passage that answers it, and passages that look as if they did."""

    question: str
    right: str
    wrong: list[str]


@dataclass(frozen=True, slots=True)
class Settings:
    """How it is trained."""

    negatives: int
    batch: int
    epochs: int
    rate: float
    seed: int


def text_of(passage: Passage) -> str:
    """What the reranker reads of a passage when it is used."""
    return embedding_text(passage.title, passage.text)


def mined(
    questions: Sequence[Question], retriever: Retriever, *, negatives: int
) -> Iterator[Example]:
    """The questions whose right passage is found, with the best of the wrong ones before it."""
    for question in questions:
        if question.unanswerable:
            continue
        passages = [hit.passage for hit in retriever.search(question.question, k=MINED)]
        right = [one for one in passages if gold_in(question, one)]
        wrong = [one for one in passages if not gold_in(question, one)]
        if right and len(wrong) >= negatives:
            kept = [text_of(one) for one in wrong[:negatives]]
            yield Example(question.question, text_of(right[0]), kept)


def cross_encoder(folder: Path) -> tuple[CrossEncoder, Scorer]:
    """The model of a folder, with one score a pair."""
    model = CrossEncoder(str(folder), num_labels=1, trust_remote_code=False, device=device())

    def score(questions: list[str], passages: list[str]) -> Tensor:
        pairs = list(zip(questions, passages, strict=True))
        scores: Tensor = model(on_device(model.preprocess(pairs)))["scores"].view(-1)
        return scores

    return model, score


def multi_vector(folder: Path) -> tuple[MultiVectorEncoder, Scorer]:
    """The model of a folder, with the sum of the largest likenesses as score."""
    model = MultiVectorEncoder(str(folder), trust_remote_code=False, device=device())

    def vectors(texts: list[str], task: str) -> tuple[Tensor, Tensor]:
        out = model(on_device(model.preprocess(texts, task=task)), task=task)
        return out["token_embeddings"], out["attention_mask"].bool()

    def score(questions: list[str], passages: list[str]) -> Tensor:
        asked, asked_mask = vectors(questions, "query")
        told, told_mask = vectors(passages, "document")
        scores: Tensor = colbert_scores_pairwise(asked, told, asked_mask, told_mask)
        return scores

    return model, score


def device() -> str:
    """Where it is computed."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def on_device(features: dict[str, Any]) -> dict[str, Any]:
    """The tensors among the features moved there."""
    return {k: v.to(device()) if isinstance(v, Tensor) else v for k, v in features.items()}


def losses(
    score: Scorer, examples: Sequence[Example], model: torch.nn.Module, settings: Settings
) -> Iterator[float]:
    """Train, and tell the loss of every step."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate)
    order = list(examples)
    shuffler = random.Random(settings.seed)
    for _ in range(settings.epochs):
        shuffler.shuffle(order)
        for start in range(0, len(order), settings.batch):
            loss = listwise(score, order[start : start + settings.batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            yield float(loss.detach())


def listwise(score: Scorer, batch: Sequence[Example]) -> Tensor:
    """`-log softmax(scores)[right]` over the passages of each question, the mean of a batch."""
    passages = [text for one in batch for text in (one.right, *one.wrong)]
    width = 1 + len(batch[0].wrong)
    questions = [one.question for one in batch for _ in range(width)]
    scores = score(questions, passages).view(len(batch), width)
    return info_nce(scores, torch.zeros(len(batch), dtype=torch.long, device=scores.device))


def measured(questions: Sequence[Question], retriever: Retriever) -> dict[str, float]:
    """Recall at 1 and 5 and the mean reciprocal rank of the first right passage."""
    found = [
        [bool(gold_in(q, hit.passage)) for hit in retriever.search(q.question, k=10)]
        for q in questions
        if not q.unanswerable
    ]
    best = [one.index(True) if any(one) else -1 for one in found]
    first = [[place == rank for place in range(10)] for rank in best]
    ranks = {f"recall@{k}": [recall_at(k, one) for one in first] for k in (1, 5)}
    ranks["mrr@10"] = [reciprocal_rank_at(10, one) for one in first]
    return {name: round(sum(values) / len(values), 4) for name, values in ranks.items()}


def parsed_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line; None for the process's own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("train", type=Path, help="questions to learn from")
    parser.add_argument("--store", type=Path, default=Path("knowledge"), help="the knowledge base")
    parser.add_argument(
        "--start", type=Path, required=True, help="folder of the model to start from"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the reranker goes")
    parser.add_argument("--dev", type=Path, help="questions to measure on, before and after")
    parser.add_argument("--negatives", type=int, default=7, help="wrong passages for each question")
    parser.add_argument("--batch", type=int, default=8, help="questions in a batch")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2e-5, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, save, measure; prints and returns what happened."""
    given = parsed_arguments(words)
    settings = Settings(given.negatives, given.batch, given.epochs, given.rate, given.seed)
    torch.manual_seed(settings.seed)
    with Store.open(given.store, create=False) as store:
        retriever = open_retriever(store, mode="bm25")
        questions = read_questions(given.train)
        examples = list(mined(questions, retriever, negatives=settings.negatives))
        if not examples:
            raise SystemExit("no question has a right passage and enough wrong ones in the store")
        model, score = (cross_encoder if given.kind == KINDS[0] else multi_vector)(given.start)
        model.train()
        told = list(losses(score, examples, model, settings))
        model.eval().save_pretrained(str(given.out))
        report: dict[str, Any] = {"examples": len(examples), "of": len(questions), "losses": told}
        if given.dev is not None:
            dev = read_questions(given.dev)
            better = Reranked(retriever, open_reranker(f"{given.kind}:{given.out}"))
            report |= {"before": measured(dev, retriever), "after": measured(dev, better)}
    print(json.dumps(report | {"losses": [told[0], told[-1]]}))
    return report


if __name__ == "__main__":
    main()
