"""How far a pull is, for whoever waits for it: some lines for people out of the many that Docker says."""

import time
from collections.abc import Callable
from typing import Any

import structlog

from router.runtimes.base import Tell

TELL_SECONDS = 3.0  # between two lines; Docker says ten a second for each layer
THERE = frozenset({"Already exists", "Pull complete"})

log = structlog.get_logger()


class Progress:
    def __init__(self, image: str, tell: Tell | None, now: Callable[[], float] = time.monotonic) -> None:
        self.problem: str | None = None  # the last one that Docker has named
        self._image = image
        self._tell = tell
        self._now = now
        self._there: dict[str, bool] = {}  # by layer
        self._came: dict[str, tuple[int, int]] = {}  # bytes, and of how many, by layer
        self._told = ""
        self._next = 0.0
        self._report()

    def hear(self, said: dict[str, Any]) -> None:
        """One line of Docker's."""
        if "error" in said:
            self.problem = str(said["error"])
        layer, status = str(said.get("id")), said.get("status")
        if status == "Pulling fs layer":
            self._there[layer] = False
        elif status in THERE:
            self._there[layer] = True
        elif status == "Downloading":
            detail = said.get("progressDetail") or {}
            self._came[layer] = (detail.get("current") or 0, detail.get("total") or 0)
        elif status == "Download complete" and layer in self._came:
            self._came[layer] = (max(self._came[layer]), max(self._came[layer]))
        self._report()

    def _report(self) -> None:
        text, now = str(self), self._now()
        if text == self._told or now < self._next:
            return
        self._told, self._next = text, now + TELL_SECONDS
        log.info(text)
        if self._tell is not None:
            self._tell(text)

    def __str__(self) -> str:
        text = f"the image {self._image} is being pulled"
        if not self._there:
            return text
        came = sum(current for current, _ in self._came.values()) / 1e6
        there = sum(self._there.values())
        return f"{text}: {there} of {len(self._there)} layers are there, {came:.0f} MB came"
