"""Where the rows of a challenge come from: a file that the operator named, or the champion's own version.

Never the candidate's run: whoever trained it would choose what it is judged on.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from router.core.challenges import Challenge
from router.core.held_out import LOGGED_FILE, MAX_BYTES, HeldOut, UnusableRows, read_csv, read_json
from router.core.models import Server
from router.core.signatures import UnreadableSignature, read_columns
from router.engine.gates.base import Case


@dataclass(frozen=True)
class Source:
    held_out: HeldOut
    name: str  # for people


async def fetch_rows(case: Case, challenge: Challenge) -> Source:
    """The operator's rows if there is a file of them, else the champion's.

    Raises UnusableRows, UnknownVersion, RegistryUnavailable.
    """
    if challenge.data is not None:
        return await _read_operators(case, challenge, challenge.data)
    assert case.champion is not None  # the gate has looked
    return await _fetch_champions(case, case.champion, challenge)


async def _fetch_champions(case: Case, champion: Server, challenge: Challenge) -> Source:
    name = f"{LOGGED_FILE} of models:/{champion.model_name}/{champion.version}"
    content = await case.registry.download(champion.model_name, champion.version, LOGGED_FILE)
    try:
        return Source(await to_thread.run_sync(read_json, content, None, challenge.rows), name)
    except UnusableRows as error:
        raise UnusableRows(f"{name}: {error}") from error


async def _read_operators(case: Case, challenge: Challenge, data: str) -> Source:
    texts = await _find_text_columns(case) if data.endswith(".csv") else frozenset()
    target, rows = challenge.target, challenge.rows

    def read() -> HeldOut:
        content = read_challenge_file(case.challenges, data)
        if data.endswith(".csv"):
            assert target is not None  # Challenge refuses a CSV without it
            return read_csv(content, target, rows, texts)
        return read_json(content, target, rows)

    try:
        return Source(await to_thread.run_sync(read), f"the operator's file {data}")
    except UnusableRows as error:
        raise UnusableRows(f"the operator's file {data}: {error}") from error


async def _find_text_columns(case: Case) -> frozenset[str]:
    """As the candidate's signature has them: a CSV cannot tell a postcode from a number."""
    signature = await case.registry.signature(case.rollout.model_name, case.rollout.version)
    try:
        columns = read_columns(signature or {}, "inputs") or {}
    except UnreadableSignature as error:
        raise UnusableRows(f"the candidate's signature does not say their types: {error}") from error
    return frozenset(name for name, column in columns.items() if column.get("type") == "string")


def read_challenge_file(folder: Path, data: str) -> bytes:
    """Links are followed inside the folder (some volumes are made of them), and refused out of it."""
    try:
        root = folder.resolve(strict=True)
        path = (root / data).resolve(strict=True)
        if not path.is_relative_to(root):
            raise UnusableRows("a link leads out of CHALLENGE_PATH")
        # Not to hang on a named pipe, and not to follow what has become a link since.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnusableRows("it is not a plain file")
            content = file.read(MAX_BYTES + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = (error.strerror if isinstance(error, OSError) else None) or "links go in a circle"
        raise UnusableRows(f"cannot be read in {folder} (CHALLENGE_PATH): {reason}") from error
    if len(content) > MAX_BYTES:
        raise UnusableRows(f"larger than {MAX_BYTES >> 20} MiB")
    return content
