"""`kill -9` of Caddy: started again, it serves the right server at once, whoever else is there."""

import httpx
import pytest

from tests.integration.engine.aftermath import check_serves
from tests.integration.engine.stage import Stage
from tests.services.yard import PLAIN


def test_a_caddy_that_is_started_again_serves_at_once(stage: Stage) -> None:
    stage.yard.caddy.kill()
    stage.yard.caddy.start()
    assert stage.yard.predict().json()["server"] == stage.server_id
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id


def test_a_caddy_that_is_started_again_needs_no_router(stage: Stage) -> None:
    yard = stage.yard
    yard.router.kill()
    yard.caddy.kill()
    yard.caddy.start()
    assert yard.predict().json()["server"] == stage.server_id
    yard.start_router()
    assert check_serves(yard, stage.model, stage.served) == stage.server_id


def test_a_router_that_is_started_before_caddy_keeps_what_users_had(stage: Stage) -> None:
    yard = stage.yard
    yard.router.kill()
    yard.caddy.kill()
    yard.start_router()
    yard.caddy.start()
    assert yard.predict().json()["server"] == stage.server_id
    assert check_serves(yard, stage.model, stage.served) == stage.server_id


def test_what_was_switched_while_caddy_was_away_is_what_it_serves(stage: Stage) -> None:
    yard = stage.yard
    yard.caddy.kill()
    with pytest.raises(httpx.ConnectError):
        yard.predict()
    assert stage.roll().send(yard).json()["version"] == stage.other
    readiness = httpx.get(f"{yard.router_url}/readyz", **PLAIN)
    assert readiness.status_code == 503
    assert "Caddy does not answer" in readiness.json()["proxy"]
    yard.caddy.start()
    assert yard.predict().json()["predictions"] == [stage.other]
    check_serves(yard, stage.model, stage.other)
