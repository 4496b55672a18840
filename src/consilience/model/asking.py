"""How a question is put: its options, and the conversation that it follows.

Knows no model and no store. What decoding can do is handed on under the same names.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from consilience.errors import UsageError
from consilience.model.decoding import DecodingOptions
from consilience.model.decoding.options import SearchName, Sum
from consilience.model.fusion import FUSIONS, Fusion
from consilience.questions import Turn
from consilience.retrieval import Mode, Refinement
from consilience.retrieval.refining import AS_FOUND
from consilience.store import Where

LONGEST_QUESTION = 4000


@dataclass(frozen=True, slots=True)
class AskOptions:
    """How a question is answered.

    Attributes:
        k: How many passages are summed over; None for what was measured on the store, else 5.
        mode: How they are found; None for what suits the model.
        refinement: What is done to their ranking.
        fusion: Where the sum stands.
        beams: Answers kept at each step; 1 is greedy. Samples have none.
        max_new_tokens: The longest answer, in sub-words.
        history: Earlier turns, the oldest first.
        access: Labels that the reader holds; None reads everything.
        where: The documents that are searched; None for all.
        abstain: Whether an answer without support is withheld.
        returned: How many answers; the further ones are `Answer.alternatives`. There are at least
            as many beams.
        sample: Draw answers at random instead of searching for the best.
        temperature: Of sampling; below 1 keeps to what is probable.
        top_k: Sample among so many tokens; 0 among all.
        top_p: Sample among the most probable tokens that have this share together.
        seed: Of sampling; the same seed gives the same answers.
        min_new_tokens: The shortest answer, in sub-words.
        repetition_penalty: Above 1 makes what was written less probable.
        stop: Texts before which an answer ends.
        quote: The answer is a stretch of a passage, word for word; for the fusions that sum over
            passages, and `fid`.
        search: How `sequence` is searched: `exact`, or as Lewis et al. did, `thorough` or `fast`.
        among: The answers that there are, at least two; the likeliest is given, the others are its
            alternatives. Empty where any text may be one.
    """

    k: int | None = None
    mode: Mode | None = None
    refinement: Refinement = AS_FOUND
    fusion: Fusion = "sequence"
    beams: int = 3
    max_new_tokens: int = 48
    history: tuple[Turn, ...] = ()
    access: Collection[str] | None = None
    where: Where | None = None
    abstain: bool = True
    returned: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    quote: bool = False
    search: SearchName = "exact"
    among: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise UsageError(
                f"unknown fusion {self.fusion!r}", hint=f"choose one of: {', '.join(FUSIONS)}"
            )
        for name in ("k", "beams", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(
                    f"{name} must be at least 1, received {value}",
                    hint=f"leave {name} out for its default",
                )
        if self.search != "exact" and self.fusion != "sequence":
            raise UsageError(
                f"search {self.search!r} is a search of the fusion 'sequence', received fusion "
                f"{self.fusion!r}",
                hint="leave out search, or take the fusion sequence",
            )
        if self.quote and self.fusion in ("attention", "concat"):
            raise UsageError(
                f"the fusion {self.fusion} does not read passages one by one, so it has none to "
                "quote",
                hint="leave out quote, or take the fusion sequence, token, average or fid",
            )
        self._check_among()
        self.decoding()

    def _check_among(self) -> None:
        if not self.among:
            return
        if len(set(self.among)) < max(2, len(self.among)):
            raise UsageError(
                f"among needs at least two answers, no two alike, received {list(self.among)}",
                hint='among=("yes", "no")',
            )
        if self.sample or self.search != "exact" or self.stop or self.quote:
            raise UsageError(
                "among chooses and writes nothing, so sample, search, stop and quote have no "
                "meaning",
                hint="leave them out",
            )

    def decoding(self, base: DecodingOptions | None = None) -> DecodingOptions:
        """The options of the search.

        Args:
            base: What the model itself asks for, such as tokens that are forced.

        Raises:
            UsageError: As `DecodingOptions`.
        """
        return replace(
            base or DecodingOptions(),
            fusion=_sum_of(self.fusion),
            groups=1,
            diversity=0.0,
            beams=1 if self.sample else max(self.beams, self.returned),
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            returned=self.returned,
            sample=self.sample,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            repetition_penalty=self.repetition_penalty,
            stop=self.stop,
            quote=self.quote,
            search=self.search,
        )


def _sum_of(fusion: Fusion) -> Sum:
    """The sum that is searched; with one row a question every sum is that row."""
    return "token" if fusion == "token" else "average" if fusion == "average" else "sequence"


def standalone(question: str, history: Sequence[Turn]) -> str:
    """A follow-up question with what it follows: the last question and its answer before it."""
    if not history:
        return question
    last = history[-1]
    return f"{last.question} {last.answer} {question}".strip()


def checked(question: str) -> str:
    """The question without the spaces around it.

    Raises:
        UsageError: It is empty or too long.
    """
    if not question.strip():
        raise UsageError("the question is empty", hint='ask something: consilience ask "…"')
    if len(question) > LONGEST_QUESTION:
        raise UsageError(
            f"the question has {len(question)} characters; {LONGEST_QUESTION} are read at most",
            hint="ask a shorter question; add long text as a document",
        )
    return question.strip()
