"""What people are told of a pull out of all that Docker says."""

from typing import Any

from router.runtimes.docker_progress import Progress

PULLED = "the image far/away:1 is being pulled"


class Listener:
    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.progress = Progress("far/away:1", self.told.append, lambda: self.now)

    def hear(self, layer: str, status: str, current: int | None = None) -> None:
        detail: dict[str, Any] = {} if current is None else {"current": current, "total": 10**8}
        self.progress.hear({"id": layer, "status": status, "progressDetail": detail})


def test_it_is_told_at_once_that_a_pull_has_begun() -> None:
    assert Listener().told == [PULLED]


def test_layers_and_bytes_are_told_when_they_have_changed_and_some_seconds_have_passed() -> None:
    listener = Listener()
    listener.hear("1", "Pulling from far/away")
    for layer in ("a", "b"):
        listener.hear(layer, "Pulling fs layer")
    listener.hear("a", "Downloading", 2_000_000)
    assert listener.told == [PULLED]

    listener.now += 3
    listener.hear("a", "Downloading", 5_000_000)
    assert listener.told[1:] == [f"{PULLED}: 0 of 2 layers are there, 5 MB came"]

    listener.now += 3
    listener.hear("a", "Verifying Checksum")
    assert listener.told[2:] == []

    listener.hear("a", "Download complete")
    assert listener.told[2:] == [f"{PULLED}: 0 of 2 layers are there, 100 MB came"]

    listener.now += 3
    listener.hear("a", "Pull complete")
    listener.hear("b", "Already exists")
    assert listener.told[3:] == [f"{PULLED}: 1 of 2 layers are there, 100 MB came"]


def test_the_last_error_is_kept() -> None:
    listener = Listener()
    listener.progress.hear({"error": "manifest unknown", "errorDetail": {"message": "manifest unknown"}})
    assert listener.progress.problem == "manifest unknown"
