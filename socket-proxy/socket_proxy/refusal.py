"""Why a call does not reach Docker."""


class Refused(Exception):
    """`reason` is sent to the client and logged, so it never quotes a value, only a name or a place."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def show(text: str) -> str:
    """A name from outside, safe to log: quoted, escaped, cut."""
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")
