"""`Jobs`: all that a server does in the background, opened and closed together.

The backlog, what its kinds of jobs do (documents, evaluations), the files they need, and the
pictures of pages that are made of these. Only puts the parts together.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consilience.serving.backlog import Backlog, BacklogLimits, Listener
from consilience.serving.config import ServeConfig
from consilience.serving.evaluations import Asked, Evaluations
from consilience.serving.intake import Intake
from consilience.serving.ledger import Ledger
from consilience.serving.pictures import Pictures
from consilience.serving.shelf import Shelf

if TYPE_CHECKING:
    from consilience.model import Rag
    from consilience.store import Store

UPLOADS = "uploads"
"""The folder of uploads, in that of the store."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """Work in the background.

    Attributes:
        backlog: What waits, runs and is over.
        intake: Documents.
        evaluations: Evaluations.
        pictures: Pages.
        shelf: Files.
        ledger: What is remembered.
    """

    backlog: Backlog
    intake: Intake
    evaluations: Evaluations
    pictures: Pictures
    shelf: Shelf
    ledger: Ledger

    def close(self, grace: float = 10.0) -> None:
        """Stop; what is not done is gone on with when they are opened again.

        Args:
            grace: Seconds that running work has to come to a good place.
        """
        self.backlog.close(grace)
        self.pictures.close()
        self.ledger.close()


def open_jobs(
    store: "Store",
    rag: "Rag",
    *,
    desk: Asked,
    config: ServeConfig,
    limits: BacklogLimits | None = None,
    on_change: Listener | None = None,
) -> Jobs:
    """Open what was left by an earlier process, and go on with it.

    Args:
        store: The knowledge base; uploads are kept in its folder.
        rag: The model, for evaluations.
        desk: Where their questions are handed in.
        config: Where evaluations are kept.
        limits: How much may pile up.
        on_change: Told of every change of a job.

    Raises:
        DamagedError: The list of jobs is damaged.
    """
    shelf = Shelf(store.path / UPLOADS)
    ledger = Ledger(shelf.folder)
    try:
        backlog = Backlog(ledger, shelf, limits=limits, on_change=on_change)
        intake = Intake(store, ledger, shelf, backlog)
        evaluations = Evaluations(config.evaluation_folder, store, rag, desk=desk)
    except BaseException:
        ledger.close()
        raise
    backlog.start({"document": intake, "evaluation": evaluations})
    return Jobs(backlog, intake, evaluations, Pictures(), shelf, ledger)
