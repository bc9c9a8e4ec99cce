"""The one error tree: each class carries its HTTP status, its code, and whether trying again can help.

A class's docstring is its default message, so that an error raised without words still says what failed.
Every message names what failed and what was left as it was; `hint` says what to do about it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class SwitchyardError(Exception):
    """The router failed in a way that it did not foresee."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, detail: Mapping[str, Any] | None = None
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        self.detail = detail
        super().__init__(self.message)


# --- the caller's mistakes -------------------------------------------------------------------------


class InvalidRequest(SwitchyardError):
    """The request is not valid."""

    status, code = 422, "invalid_request"


class InvalidSpec(SwitchyardError):
    """A trainer spec is not valid."""

    status, code = 422, "invalid_spec"


class UnsupportedSetting(SwitchyardError):
    """A setting cannot be honoured by this runtime."""

    status, code = 422, "unsupported_setting"


class IdempotencyKeyReused(SwitchyardError):
    """This Idempotency-Key was used before with another request."""

    status, code = 422, "idempotency_key_reused"


class UnknownImageKey(SwitchyardError):
    """The trainer has no image under this key."""

    status, code = 400, "unknown_image_key"


class BodyTooLarge(SwitchyardError):
    """The request body is larger than 1 MiB."""

    status, code = 413, "body_too_large"


class NotFound(SwitchyardError):
    """There is no such thing."""

    status, code = 404, "not_found"


class UnknownTrainer(NotFound):
    """There is no trainer of this name."""

    code = "unknown_trainer"


class UnknownVersion(NotFound):
    """The registry has no such model version or alias."""

    code = "unknown_version"


class UnknownEndpoint(NotFound):
    """There is no endpoint of this name."""

    code = "unknown_endpoint"


class UnknownRecord(NotFound):
    """There is no training or rollout with this id."""

    code = "unknown_id"


class Conflict(SwitchyardError):
    """The request does not fit what is going on."""

    status, code = 409, "conflict"


class RolloutInProgress(Conflict):
    """Another rollout of this endpoint is still going on."""

    code = "rollout_in_progress"


class EndpointExists(Conflict):
    """There is an endpoint of this name, or with this alias, already."""

    code = "endpoint_exists"


class EndpointClosing(Conflict):
    """The endpoint is still being removed."""

    code, retryable = "endpoint_closing", True


class NothingToRollBackTo(Conflict):
    """The endpoint has no earlier server to go back to."""

    code = "nothing_to_roll_back_to"


class NoMemoryForCandidate(Conflict):
    """There is no memory for a second server beside the active one."""

    code = "no_memory_for_candidate"


class NotShifting(Conflict):
    """The rollout's candidate has no share of the traffic that could be changed."""

    code = "not_shifting"


class NoNextModel(Conflict):
    """There is no next model beside the current one."""

    code = "no_next_model"


class AlreadyFinished(Conflict):
    """It has already ended, so it cannot be stopped."""

    code = "already_finished"


# --- the work itself failed ------------------------------------------------------------------------


class TrainerFailed(SwitchyardError):
    """The trainer failed."""

    code = "trainer_failed"


class CandidateUnhealthy(SwitchyardError):
    """The candidate did not prove itself; the active server was left as it was."""

    status, code = 503, "candidate_unhealthy"


class LaunchFailed(SwitchyardError):
    """The runtime could not start a trainer or server."""

    status, code = 503, "launch_failed"


class ImageNotFound(LaunchFailed):
    """The image (under `process`: the source folder) is not there."""

    code = "image_not_found"


# --- what the router stands on is not there --------------------------------------------------------


class Unavailable(SwitchyardError):
    """Something that the router needs does not answer."""

    status, code, retryable = 503, "unavailable", True


class RegistryUnavailable(Unavailable):
    """MLflow does not answer."""

    code = "registry_unavailable"


class RegistryRefusedHost(RegistryUnavailable):
    """MLflow refuses our Host header (its --allowed-hosts does not name the address that we call)."""

    code = "registry_refused_host"


class RuntimeUnavailable(Unavailable):
    """The runtime that runs trainers and servers does not answer."""

    code = "runtime_unavailable"


class EndpointBusy(Unavailable):
    """The endpoint is taken by another rollout for the moment."""

    code = "endpoint_busy"


class ProxyUnavailable(Unavailable):
    """Caddy's admin API does not answer."""

    code = "proxy_unavailable"


class StoreUnavailable(Unavailable):
    """The store does not answer."""

    code = "store_unavailable"


class StandingBy(Unavailable):
    """Another router is the active one for these slots; this one stands by."""

    code = "standing_by"


class NothingLoaded(Unavailable):
    """No model is serving yet."""

    code, retryable = "nothing_loaded", False


class StorageFull(SwitchyardError):
    """The disk is full; nothing was changed."""

    status, code, retryable = 507, "storage_full", True


class NoRoomForCandidate(StorageFull):
    """The disk is too full for the candidate; the active server was left as it was."""

    retryable = False


# --- between the router's own parts ----------------------------------------------------------------


class StaleRecord(SwitchyardError):
    """Somebody else moved this record first."""

    status, code, retryable = 409, "stale_record", True
