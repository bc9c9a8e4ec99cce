"""Waiting for an event, but not for ever."""

import asyncio


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` was set before `seconds` were over."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
