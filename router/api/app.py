"""The HTTP application over an engine that is given to it, so that tests give it another one."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from router import __version__
from router.api import canary, endpoints, lineage, model_version, rollouts, status, trainings
from router.api.errors import install_error_handlers
from router.api.guards import BearerToken, RequestGuards
from router.api.parameters import refuse_unknown_parameters
from router.engine.engine import Engine

DESCRIPTION = """
Trains a model, proves it, and switches live traffic to it without losing one request.

A call that starts work answers when the work is done, or 202 with a `Location` when the wait ends first.
With an `Idempotency-Key` header a repeat of a call does nothing twice. Every error has one shape:
`{"detail": ..., "error": {"code", "message", "hint"}}`.
"""


def make_app(engine: Engine, token: str | None = None, known_hosts: Collection[str] = ()) -> FastAPI:
    """`known_hosts`: names with a dot by which it may be called without a token."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.running():
            yield

    app = FastAPI(title="Switchyard", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.engine = engine
    # A page that has rebound its name does not know the token, so with one any name will do.
    app.add_middleware(RequestGuards, known_hosts=known_hosts if token is None else None)
    if token is not None:
        app.add_middleware(BearerToken, token=token)  # before a body is read
    install_error_handlers(app)
    known_parameters = [Depends(refuse_unknown_parameters)]
    for part in (status, trainings, rollouts, endpoints, lineage, canary, model_version):
        app.include_router(part.router, dependencies=known_parameters)
    return app
