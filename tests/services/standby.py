"""A second router over the files of a first one: it stands by."""

import httpx

from tests.services.yard import PLAIN


def stands_by(url: str) -> bool:
    try:
        return "another router" in httpx.get(f"{url}/readyz", **PLAIN).text
    except httpx.TransportError:
        return False
