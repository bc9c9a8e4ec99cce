"""Calls made up from the router's own description of itself: whatever they say, the router does not break."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok

from tests.integration.spine.stage import Trainer, add_trainer, wait_for_end
from tests.services.yard import Yard

CALL_SECONDS = 30
DOCUMENTED_FAILURES = {503, 507}  # something that is needed is not there


@pytest.fixture(scope="module")
def trainer(yard: Yard) -> Trainer:
    """Two versions of its model have served, so that a rollback has something to do."""
    trainer = add_trainer(yard)
    for _ in range(2):
        wait_for_end(yard, yard.post(f"/admin/train_then_roll/{trainer.name}")["rollout_id"])
    return trainer


def make_up(examples: int) -> settings:
    """The same calls in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def find_operations(yard: Yard) -> dict[str, Any]:
    """By method and path."""
    described = schemathesis.openapi.from_url(f"{yard.router_url}/openapi.json")
    found = [operation.ok() for operation in described.get_all_operations() if isinstance(operation, Ok)]
    return {operation.label: operation for operation in found}


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_no_made_up_call_breaks_the_router(
    yard: Yard, trainer: Trainer, mode: schemathesis.GenerationMode
) -> None:
    """As described (`positive`), or not (`negative`)."""
    for operation in find_operations(yard).values():
        if mode.is_negative and not (operation.body or operation.path_parameters or operation.query):
            continue  # there is nothing in it to get wrong

        @make_up(12)
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case: Any) -> None:
            answer = case.call(timeout=CALL_SECONDS)
            assert answer.status_code < 500 or answer.status_code in DOCUMENTED_FAILURES, answer.text
            check_shape(answer)

        call()


def test_a_real_trainer_takes_made_up_parameters_or_they_are_refused(yard: Yard, trainer: Trainer) -> None:
    operation = find_operations(yard)["POST /admin/train/{trainer}"]

    @make_up(10)
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        case.path_parameters = {"trainer": trainer.name}
        answer = case.call(timeout=CALL_SECONDS)
        assert answer.status_code in {200, 202, 400, 422}, answer.text
        check_shape(answer)

    call()


def check_shape(answer: Any) -> None:
    if answer.status_code >= 400:
        body = answer.json()
        assert body["detail"]
        assert body["error"]["code"]
        assert body["error"]["message"]


def test_after_all_that_the_router_works(yard: Yard, trainer: Trainer) -> None:
    assert yard.router.running
    assert yard.get("/status")["healthy"] is True
    assert "Traceback" not in yard.router.log.read_text()  # from its start: nothing else broke it either
    assert yard.post(f"/admin/train_then_roll/{trainer.name}")["rolled"] is True
