"""The spine's calls that make no sense, through the compose stack's published ports."""

import pytest

from scripts.demo_run import TRAINER
from tests.e2e.aftermath import read_active, read_owners
from tests.e2e.compose_stack import ComposeStack
from tests.e2e.test_compose import put_two_in_service
from tests.integration.spine.abuse import (
    NO_HTTP,
    NO_NAMES,
    NO_OBJECTS,
    WRONG_FIELDS,
    check_no_http,
    check_no_name,
    check_no_object,
    check_wrong_field,
)

pytestmark = pytest.mark.xdist_group("compose")


def look(stack: ComposeStack) -> tuple[object, ...]:
    """What none of it may change: records, containers, traffic, the router itself."""
    started = stack.docker("inspect", "--format", "{{.State.StartedAt}}", stack.container("router"))
    return stack.history(), sorted(read_owners(stack)), read_active(stack), started


def test_calls_that_make_no_sense_are_told_so_and_change_nothing(stack: ComposeStack) -> None:
    put_two_in_service(stack)
    before = look(stack)
    for name in NO_NAMES:
        for call in ("train", "train_then_roll"):
            check_no_name(stack.router_url, call, name)
    for path, body, field in WRONG_FIELDS:
        check_wrong_field(stack.router_url, TRAINER, path, body, field)
    for content in NO_OBJECTS:
        check_no_object(stack.router_url, TRAINER, content)
    for sent in NO_HTTP.values():
        check_no_http(stack.router_url, stack.public_url, sent)
        assert stack.predict().status_code == 200
    assert look(stack) == before
    assert stack.status()["healthy"] is True
