"""How long a call of the registry may take: a few quick tries of the whole operation, within one deadline."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import anyio
import stamina

from router.core.errors import RegistryRefusedHost, RegistryUnavailable


@dataclass(frozen=True)
class Patience:
    """In seconds: for a connection, for the next bytes of an answer, for all tries together."""

    connect: float = 1.0
    answer: float = 4.0
    total: float = 10.0
    attempts: int = 3


class Patient(Protocol):
    patience: Patience

    def unavailable(self, reason: str) -> RegistryUnavailable: ...


Driver = TypeVar("Driver", bound=Patient)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Operation = Callable[Concatenate[Driver, Parameters], Coroutine[Any, Any, Result]]


def bounded(operation: Operation[Driver, Parameters, Result]) -> Operation[Driver, Parameters, Result]:
    """Repeats a method while the registry does not answer. The method must be harmless to repeat."""

    @wraps(operation)
    async def run_bounded(
        driver: Driver, /, *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        patience = driver.patience
        tries = stamina.retry_context(
            on=_may_recover, attempts=patience.attempts, timeout=None, wait_initial=0.1, wait_max=0.5
        )
        try:
            with anyio.fail_after(patience.total):
                async for attempt in tries.with_name(operation.__qualname__, (), {}):
                    with attempt:
                        return await operation(driver, *arguments, **named)
        except TimeoutError as error:
            raise driver.unavailable(f"no result within {patience.total:g} s") from error
        raise AssertionError("the last try either returns or raises")

    return run_bounded


def _may_recover(error: Exception) -> bool:
    return isinstance(error, RegistryUnavailable) and not isinstance(error, RegistryRefusedHost)
