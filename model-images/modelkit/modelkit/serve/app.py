"""The HTTP of the server contract, around any `Predict`: MLflow's paths, methods and status codes."""

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelkit.serve.answers import Predict

_JSON = "application/json"
_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody is there to read it


def make_app(predict: Predict, *, version: str, request_timeout: float) -> Starlette:
    """`version` is what /version says: MLflow's. `request_timeout` is in seconds."""

    async def ping(_: Request) -> Response:
        return Response("\n", media_type=_JSON)

    async def tell_version(_: Request) -> Response:
        return Response(version, media_type=_JSON)

    async def invoke(request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        content_type = request.headers.get("content-type")
        try:
            async with asyncio.timeout(request_timeout):
                answer = await asyncio.to_thread(predict, body, content_type)
        except TimeoutError:
            return Response("Request processing time exceeded limit", status_code=504, media_type=_JSON)
        return Response(answer.body, status_code=answer.status, media_type=answer.media_type)

    return Starlette(
        routes=[
            Route("/ping", ping, methods=["GET"]),
            Route("/health", ping, methods=["GET"]),
            Route("/version", tell_version, methods=["GET"]),
            Route("/invocations", invoke, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _answer_http_error},
    )


async def _answer_http_error(_: Request, error: Exception) -> Response:
    """404 and 405 as MLflow's server words them."""
    if not isinstance(error, HTTPException):
        raise TypeError(f"registered for HTTPException, called with {error!r}")
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
