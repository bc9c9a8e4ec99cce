"""A parameter of a URL that no call has is refused: `rollback?endpoint=iris` would roll `default` back."""

from fastapi import Request
from fastapi.dependencies.models import Dependant

from router.api.guards import OPEN_PATHS
from router.core.errors import InvalidRequest
from router.core.variables import printable


def refuse_unknown_parameters(request: Request) -> None:
    """Raises InvalidRequest. What looks at health may send what it likes."""
    if not request.query_params or request.url.path in OPEN_PATHS:
        return
    known = _list_parameters(request.scope["route"].dependant)
    for name in request.query_params:
        if name not in known:
            has = f"this call has {', '.join(sorted(known))}" if known else "this call has none"
            raise InvalidRequest(
                f"the URL's parameter {printable(name)} is unknown: {has}. Nothing was done.",
                hint="what a POST is asked for goes into its body, as JSON"
                if request.method == "POST"
                else None,
            )


def _list_parameters(call: Dependant) -> set[str]:
    """Its own, and those of what it depends on."""
    own = {field.alias for field in call.query_params}
    return own.union(*map(_list_parameters, call.dependencies))
