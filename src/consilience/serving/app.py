"""The application: every router of one closed table behind one door, and the page.

Routes write their whole path, `/v1/…`, and state what they need by one of `Reader`, `Writer` and
`Admin`. The page is a folder of files that everyone may read. Nothing here knows what routes do.
"""

import mimetypes
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from consilience.serving import failing
from consilience.serving.door import Door
from consilience.serving.journal import Journal, Write, write_line
from consilience.serving.places import Places
from consilience.serving.routes import (
    ask,
    documents,
    evaluations,
    health,
    jobs,
    keys,
    openai,
    passages,
    runs,
    search,
    settings,
)
from consilience.serving.service import Service
from consilience.version import __version__

ROUTERS = tuple(
    module.router
    for module in (
        health,
        ask,
        search,
        passages,
        documents,
        jobs,
        evaluations,
        runs,
        settings,
        keys,
        openai,
    )
)
"""The closed table of routers."""

WEB = Path(__file__).parent.parent / "web"
"""The page."""


def create_app(service: Service, *, write: Write = write_line) -> FastAPI:
    """An application over a service, which it does not close.

    Args:
        service: What the routes share.
        write: Writes a line of the log.
    """
    app = FastAPI(
        title="Consilience",
        version=__version__,
        description="Answers from your own documents, with the passages they rest on.",
        docs_url=None,  # its page would come from another machine
        redoc_url=None,
        redirect_slashes=False,
        responses=failing.RESPONSES,
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    failing.install(app)
    app.add_middleware(Door, service=service, places=Places(_routes()))
    app.add_middleware(Journal, metrics=service.metrics, write=write)
    _add_page(app)
    return app


def _routes() -> list[APIRoute]:
    return [each for router in ROUTERS for each in router.routes if isinstance(each, APIRoute)]


def _add_page(app: FastAPI) -> None:
    """The files of the page; what a browser makes of one does not depend on this machine."""
    for ending, kind in ((".js", "text/javascript"), (".mjs", "text/javascript")):
        mimetypes.add_type(kind, ending)
    app.mount("/", StaticFiles(directory=WEB, html=True, check_dir=False), name="page")
