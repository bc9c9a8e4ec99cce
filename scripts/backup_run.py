"""Packs the state of a stack, running or not, into one file: see scripts/backup."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from scripts.archive import ArchiveError, check
from scripts.service_commands import ROOT
from scripts.stack_error import StackError
from scripts.stack_state import StackState, choose_state, describe_serving


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/backup", description=str(__doc__).splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="by default a new one in backups/")
    parser.add_argument(
        "--without-store", action="store_true", help="the store is on PostgreSQL, and pg_dump has been run"
    )
    given = parser.parse_args()
    file = given.file or ROOT / "backups" / time.strftime("switchyard-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime())
    try:
        state = choose_state()
        refuse_half_a_backup(state, given.without_store)
        manifest = back_up(state, file)
    except (ArchiveError, StackError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"backup: {file}, {file.stat().st_size / 2**20:.1f} MiB, checked")
    for line in describe_serving(manifest):
        print(f"backup: {line}")
    return 0


def refuse_half_a_backup(state: StackState, without_store: bool) -> None:
    if (what := state.missing()) is not None:
        raise StackError(f"{what}: nothing to back up; {state.start_command} starts a stack")
    if state.store_url and not without_store:
        raise StackError(
            "STORE_URL: the store is not in the stack's state. Back it up first, with pg_dump, then the rest:"
            " scripts/backup --without-store"
        )
    if without_store and not state.store_url:
        raise StackError("--without-store: the store is in the stack's state, and is backed up with it")


def back_up(state: StackState, file: Path) -> dict[str, Any]:
    """The manifest. Under its name there is a whole archive, which was read again, or nothing new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.part")
    try:
        # Readable by us alone: it holds the env of trainers.
        draft.touch(mode=0o600)
        with draft.open("w+b") as output:
            state.pack(output)
            os.fsync(output.fileno())
            output.seek(0)
            manifest = check(output)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return manifest


if __name__ == "__main__":
    sys.exit(main())
