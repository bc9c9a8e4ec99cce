"""Every error in one shape: `{"detail": ..., "error": {"code", "message", "hint"}}`.

`detail` is what clients of FastAPI services read: a text, the list of a validation error, or the object that
an older client was promised.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from router.core.errors import InvalidRequest, SwitchyardError

RETRY_AFTER_SECONDS = "2"

MAX_PROBLEMS = 20  # of one request: an answer is no larger than what asked for it


def error_response(
    status: int,
    code: str,
    message: str,
    hint: str | None = None,
    detail: Any = None,
    *,
    retryable: bool = False,
) -> JSONResponse:
    """`retryable`: the same request may succeed in a moment, which clients that retry look for."""
    body = {
        "detail": message if detail is None else detail,
        "error": {"code": code, "message": message, "hint": hint},
    }
    headers = {"Retry-After": RETRY_AFTER_SECONDS} if retryable else None
    return JSONResponse(jsonable_encoder(body), status_code=status, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(SwitchyardError)
    async def answer_ours(_: Request, error: SwitchyardError) -> JSONResponse:
        return error_response(
            error.status,
            error.code,
            error.message,
            error.hint,
            error.detail,
            retryable=error.retryable,
        )

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without what was sent: it may be large, secret, or not expressible in JSON.
        problems = [
            {"loc": found["loc"], "msg": found["msg"], "type": found["type"]}
            for found in error.errors()[:MAX_PROBLEMS]
        ]
        message = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in problems)
        return error_response(
            InvalidRequest.status, InvalidRequest.code, message, _hint(request, problems), problems
        )

    @app.exception_handler(HTTPException)
    async def answer_http(_: Request, error: HTTPException) -> JSONResponse:
        lost = error.status_code == 404
        hint = "GET /docs lists the calls; models answer on the public port" if lost else None
        return error_response(error.status_code, f"http_{error.status_code}", str(error.detail), hint)


def _hint(request: Request, problems: list[dict[str, Any]]) -> str | None:
    """`curl -d` alone declares a form, which is then no object: the mistake that everybody makes once."""
    declared = request.headers.get("content-type", "")
    whole_body = any(tuple(problem["loc"]) == ("body",) for problem in problems)
    if whole_body and "json" not in declared:
        return "send the body with the header `Content-Type: application/json`"
    kinds = {problem["type"] for problem in problems}
    if "json_invalid" in kinds:
        return "JSON has names and text in double quotes, and no comma after the last one"
    if "extra_forbidden" in kinds and request.url.path.startswith("/admin/train"):
        return 'what the trainer shall read goes into `parameters`: {"parameters": {"N_ESTIMATORS": 10}}'
    return None
