"""Decoding and training the sum, beside transformers' RAG classes, on the same random weights.

Both libraries run the same lines of this file; only the import differs, and that ours is told when
nobody will look at the logits. Each has a process of its
own, they take turns, and every result is compared before a time is believed: sequences must be the
same, losses and gradients equal.

The floor is what the matrix products alone would take at the rate that this machine reaches in
float32, had everything else cost nothing. RAG-Sequence scores every candidate under all passages;
how much that is depends on the candidates, so it is counted while ours decodes them: the
beginnings of candidates, equal ones of a question once, under each passage that did not propose
them.

    python benchmarks/model.py --out docs/benchmarks/model.md
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

LIBRARIES = {"ours": "consilience.compat.transformers", "transformers": "transformers"}
TASKS = (
    "token greedy",
    "token beam 4",
    "sequence greedy",
    "sequence beam 4",
    "token loss",
    "sequence loss",
)
DECODING = TASKS[:4]


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed.

    Attributes:
        questions, passages, length, steps: Questions, passages of each, tokens of a passage with
            its question, tokens of an answer.
        hidden, layers, heads, vocabulary: Of encoder and decoder alike.
        spread: Standard deviation of the random weights. transformers' own 0.02 makes every passage
            give the same answer, so that nothing is left to sum over.
    """

    questions: int = 8
    passages: int = 5
    length: int = 128
    steps: int = 20
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    vocabulary: int = 50265
    spread: float = 0.05

    @property
    def rows(self) -> int:
        """Questions over passages."""
        return self.questions * self.passages

    def encoding(self) -> float:
        """Operations of reading every row, the keys and values for the decoder included."""
        tokens = self.rows * self.length
        layer = 2 * 12 * self.hidden**2 + 4 * self.length * self.hidden
        return tokens * self.layers * (layer + 2 * 2 * self.hidden**2)

    def writing(self, tokens: float) -> float:
        """Operations of as many decoder positions, the vocabulary included."""
        layer = 2 * 14 * self.hidden**2 + 4 * self.length * self.hidden
        return tokens * (self.layers * layer + 2 * self.hidden * self.vocabulary)

    def operations(self, task: str, scored: int = 0) -> float:
        """Of a task without anything twice: one open end at the first step, then all beams.

        Args:
            task: Which.
            scored: Decoder positions at which RAG-Sequence scores candidates again.
        """
        if task.endswith("loss"):
            return 3 * (self.encoding() + self.writing(self.rows * self.steps))
        return self.encoding() + self.writing(self.searched(task) + scored)

    def searched(self, task: str) -> int:
        """Decoder positions of a search.

        The last token is forced, so it needs none for RAG-Token; RAG-Sequence counts what it costs.
        """
        beams = 4 if task.endswith("4") else 1
        free = self.steps - (2 if task.startswith("token") else 1)
        return self.rows * (1 + beams * free)


def build(library: str, kind: str, work: Work) -> Any:
    """A RAG model of random weights, the same for both libraries."""
    import torch
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        DPRConfig,
        DPRQuestionEncoder,
    )

    rag = import_module(LIBRARIES[library])
    questions = DPRConfig(
        hidden_size=work.hidden,
        num_hidden_layers=work.layers,
        num_attention_heads=work.heads,
        intermediate_size=4 * work.hidden,
    )
    generator = BartConfig(
        d_model=work.hidden,
        encoder_layers=work.layers,
        decoder_layers=work.layers,
        encoder_attention_heads=work.heads,
        decoder_attention_heads=work.heads,
        encoder_ffn_dim=4 * work.hidden,
        decoder_ffn_dim=4 * work.hidden,
        vocab_size=work.vocabulary,
        init_std=work.spread,
    )
    config = rag.RagConfig.from_question_encoder_generator_configs(
        questions, generator, n_docs=work.passages, max_combined_length=work.length
    )
    torch.manual_seed(0)
    parts = {
        "question_encoder": DPRQuestionEncoder(questions),
        "generator": BartForConditionalGeneration(generator),
    }
    return getattr(rag, f"Rag{kind.capitalize()}ForGeneration")(config=config, **parts).eval()


def inputs(work: Work) -> dict[str, Any]:
    """Questions, rows and answers of random tokens; vectors of the passages."""
    import torch

    draw = torch.Generator().manual_seed(1)

    def tokens(*shape: int) -> torch.Tensor:
        ids = torch.randint(3, work.vocabulary, shape, generator=draw)
        ids[..., 0], ids[..., -1] = 0, 2
        return ids

    return {
        "questions": torch.randint(1000, 30000, (work.questions, 16), generator=draw),
        "rows": tokens(work.rows, work.length),
        "answers": tokens(work.questions, work.steps),
        "vectors": 0.1 * torch.randn(work.questions, work.passages, work.hidden, generator=draw),
    }


def generate(model: Any, given: dict[str, Any], work: Work, beams: int) -> list[list[int]]:
    """Questions to answers: the same call in both libraries."""
    import torch

    with torch.inference_mode():
        asked = model.question_encoder(given["questions"])[0]
        scores = torch.einsum("bd,bkd->bk", asked, given["vectors"])
        written = model.generate(
            context_input_ids=given["rows"],
            context_attention_mask=torch.ones_like(given["rows"]),
            doc_scores=scores,
            n_docs=work.passages,
            num_beams=beams,
            max_length=work.steps + 1,
            min_length=work.steps + 1,
        )
    return [list(map(int, row)) for row in written]


def train(library: str, model: Any, given: dict[str, Any], work: Work) -> list[float]:
    """Loss, and the size of the gradient by part.

    Ours is asked for the loss alone; transformers has no way to say so.
    """
    import torch

    model.zero_grad(set_to_none=True)
    asked = model.question_encoder(given["questions"])[0]
    scores = torch.einsum("bd,bkd->bk", asked, given["vectors"])
    loss = model(
        context_input_ids=given["rows"],
        context_attention_mask=torch.ones_like(given["rows"]),
        doc_scores=scores,
        labels=given["answers"],
        n_docs=work.passages,
        use_cache=False,
        **({"output_logits": False} if library == "ours" else {}),
    ).loss.sum()
    loss.backward()
    parts = (model.question_encoder, model.generator)
    sizes = [
        sum(float(p.grad.norm()) for p in part.parameters() if p.grad is not None) for part in parts
    ]
    return [float(loss.detach()), *sizes]


def run_task(library: str, task: str, work: Work, models: dict[str, Any]) -> Any:
    """One run of a task; models are kept between runs."""
    kind = task.split()[0]
    if kind not in models:
        models[kind] = build(library, kind, work)
    given = inputs(work)
    if task.endswith("loss"):
        return train(library, models[kind], given, work)
    return generate(models[kind], given, work, beams=4 if task.endswith("4") else 1)


def serve(library: str, threads: int) -> None:
    """A child: a line with a task comes in, a line with its times and its result goes out."""
    import torch

    torch.set_num_threads(threads)
    models: dict[str, Any] = {}
    work = Work()
    positions = count_scored() if library == "ours" else []
    for line in sys.stdin:
        task = line.strip()
        kind = task.split()[0]
        if kind not in models:
            models[kind] = build(library, kind, work)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        positions.clear()
        begun, used = time.perf_counter(), time.process_time()
        result = run_task(library, task, work, models)
        spent = time.perf_counter() - begun, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        figures = {"wall": spent[0], "cpu": spent[1], "peak": peak, "held": held}
        print(json.dumps({**figures, "scored": sum(positions), "result": result}), flush=True)


def count_scored() -> list[int]:
    """From now on every call that scores candidates again adds its decoder positions here."""
    from consilience.generation import Seq2SeqGenerator

    found: list[int] = []
    ask = Seq2SeqGenerator.ask

    def counted(self: Any, memory: Any, state: Any, ends: Any, asked: Any) -> Any:
        found.append(int(ends.there.sum()))
        return ask(self, memory, state, ends, asked)

    Seq2SeqGenerator.ask = counted  # type: ignore[method-assign]
    return found


class Child:
    """A library in a process of its own."""

    def __init__(
        self, library: str, threads: int, environment: dict[str, str] | None = None
    ) -> None:
        command = [sys.executable, __file__, "--serve", library, "--threads", str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | (environment or {}),
        )

    def run(self, task: str) -> dict[str, Any]:
        """Run a task once."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the child has no pipes")
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def matrix_rate(threads: int) -> float:
    """Float32 operations a second of a large matrix product."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(5120, 384), torch.randn(1536, 384)
    best = min(_seconds(lambda: torch.nn.functional.linear(left, right)) for _ in range(30))
    return 2 * 5120 * 384 * 1536 / best


def _seconds(function: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def same(task: str, ours: Any, theirs: Any) -> bool:
    """Whether both libraries computed the same."""
    if task in DECODING:
        return bool(ours == theirs)
    return all(abs(a - b) <= 2e-3 * abs(b) for a, b in zip(ours, theirs, strict=True))


def measure(task: str, children: dict[str, Child], runs: int) -> dict[str, Any]:
    """Medians of a task, both libraries in turn after one warm-up each."""
    first = {name: child.run(task) for name, child in children.items()}
    results = {name: one["result"] for name, one in first.items()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
    for _ in range(runs):
        for name, child in children.items():
            found[name].append(child.run(task))
    return {
        "task": task,
        "same": same(task, results["ours"], results["transformers"]),
        "scored": first["ours"]["scored"],
        **{
            f"{name} {figure}": statistics.median(run[figure] for run in all_runs)
            for name, all_runs in found.items()
            for figure in ("wall", "cpu")
        },
    }


def peak_memory(task: str, threads: int) -> dict[str, float]:
    """Largest resident memory of a fresh process that runs a task twice, and what it had, MB."""
    found = {}
    for name in LIBRARIES:
        child = Child(name, threads)
        found[f"{name} before"] = child.run(task)["held"]
        found[name] = child.run(task)["peak"]
        child.close()
    return found


def table(found: list[dict[str, Any]], peaks: dict[str, dict[str, float]], rate: float) -> str:
    """All figures as a page."""
    work = Work()
    lines = [
        "# The sum beside transformers' RAG classes",
        "",
        f"{work.questions} questions of 16 tokens, {work.passages} passages each, rows of "
        f"{work.length} tokens, {work.steps} new tokens; question encoder of {work.layers} layers, "
        f"BART with {work.layers} + {work.layers} layers, hidden size {work.hidden}, "
        f"vocabulary {work.vocabulary:,}; float32, {platform.machine()}, 2 threads, medians. Each "
        "library has a process of its own, they take turns, and outputs were compared.",
        "",
        f"The floor is the matrix products alone at {rate / 1e9:.0f} GFLOP/s, as measured here. "
        "RAG-Sequence scores the candidates of every passage under all passages. That is in its "
        "floor, each beginning that candidates of a question have in common counted once, and not "
        "under the passage that proposed it, whose search knew it already: "
        + _positions(found, work),
        "",
        "At most so many times as fast as transformers could anything be that stands on the floor.",
        "",
        "Regenerate with `make bench`.",
        "",
        "| | transformers s | ours s | times as fast | at most | processor seconds | same result "
        "| floor s | above the floor |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for one in found:
        theirs, ours = one["transformers wall"], one["ours wall"]
        floor = work.operations(one["task"], one["scored"]) / rate
        lines.append(
            f"| {one['task']} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} "
            f"| {theirs / floor:.1f} | {one['transformers cpu'] / one['ours cpu']:.1f} times fewer "
            f"| {'yes' if one['same'] else 'NO'} | {floor:.2f} | {ours / floor:.1f} |"
        )
    lines += [
        "",
        "Largest resident memory of a fresh process that runs the task twice; in brackets without",
        "what it held before the first: the interpreter, the libraries and the weights.",
        "",
        "| | transformers MB | ours MB | share |",
        "|---|---:|---:|---:|",
    ]
    for task, peak in peaks.items():
        own = {name: peak[name] - peak[f"{name} before"] for name in LIBRARIES}
        shares = peak["ours"] / peak["transformers"], own["ours"] / own["transformers"]
        lines.append(
            f"| {task} | {peak['transformers']:.0f} ({own['transformers']:.0f}) "
            f"| {peak['ours']:.0f} ({own['ours']:.0f}) | {shares[0]:.2f} ({shares[1]:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def _positions(found: list[dict[str, Any]], work: Work) -> str:
    """How many positions each task of RAG-Sequence searches and scores again, as a sentence."""
    told = [
        f"{one['task']} searches {work.searched(one['task']):,} positions and scores "
        f"{one['scored']:,}"
        for one in found
        if one["scored"]
    ]
    return "; ".join(told) + "." if told else "It was not measured this time."


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--serve", choices=LIBRARIES)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.threads)
        return
    rate = matrix_rate(options.threads)
    children = {name: Child(name, options.threads) for name in LIBRARIES}
    found = [measure(task, children, options.runs) for task in options.tasks]
    for child in children.values():
        child.close()
    losses = [task for task in options.tasks if task.endswith("loss")]
    page = table(found, {task: peak_memory(task, options.threads) for task in losses}, rate)
    print(page)
    if options.out:
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
