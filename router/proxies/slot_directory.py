"""The slot directory is the switch: the one place that says who gets an endpoint's traffic.

    slots/NAME/current -> 42
    slots/NAME/42/active, candidate, cut    what Caddy reads for every request
    slots/NAME/42/traffic.json              the same and more, for people and for recovery

A numbered directory is written and synced while nobody names it; one rename of `current` makes it hold. So
the files never change apart, a crash at any step leaves the old state or the new one, and what users get is
also what the next router finds. Everything here blocks for as long as the disk takes: call it in a thread.
"""

import re
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import ValidationError

from router.core.errors import InvalidRequest, ProxyUnavailable, UnknownEndpoint
from router.core.traffic import NAME_PATTERN, Traffic, Upstream, cut_for
from router.proxies.durable import sync_directory, translate_storage_errors, write_together

log = structlog.get_logger(__name__)

# Numbered directories that stay: a reader that has resolved `current` may still be inside an old one.
KEPT = 8
ADDRESS = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


class SlotDirectories:
    def __init__(self, root: Path, idle_address: str) -> None:
        self.root = root
        self._idle_address = idle_address
        self._writing = threading.Lock()

    def names(self) -> list[str]:
        with translate_storage_errors(f"listing the slots in {self.root}"):
            if not self.root.is_dir():
                return []
            homes = [path for path in self.root.iterdir() if re.fullmatch(NAME_PATTERN, path.name)]
            return sorted(home.name for home in homes if (home / "current").is_symlink())

    def create(self, names: Sequence[str]) -> list[str]:
        """All of them or, on an error, none; returns the new ones, which name no server yet.

        One that has only lost its `current` goes back to its last state.
        """
        homes = [self._home(name) for name in dict.fromkeys(names)]
        made: list[Path] = []
        with self._writing, translate_storage_errors(f"making slot directories in {self.root}"):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                for home in homes:
                    if (home / "current" / "traffic.json").exists():
                        continue
                    if home.is_dir() and self._restore(home):
                        continue
                    made.append(home)
                    home.mkdir(exist_ok=True)
                    self._switch(home, Traffic())
                if made:
                    sync_directory(self.root)
            except OSError:
                for home in made:
                    shutil.rmtree(home, ignore_errors=True)
                raise
        return [home.name for home in made]

    def remove(self, names: Sequence[str]) -> None:
        homes = [self._home(name) for name in names]
        with self._writing, translate_storage_errors(f"removing slot directories from {self.root}"):
            for home in homes:
                # In one step: what is left of a half removed one would be restored when its name comes back.
                gone = home.with_name(f".{home.name}.gone")
                shutil.rmtree(gone, ignore_errors=True)
                if home.is_dir():
                    home.rename(gone)
                    shutil.rmtree(gone)
            sync_directory(self.root)

    def read(self, name: str) -> Traffic:
        """Short enough for an event loop: one small file that is in memory."""
        path = self._home(name) / "current" / "traffic.json"
        try:
            with translate_storage_errors(f"reading {path}"):
                return Traffic.model_validate_json(self._read_bytes(path))
        except ValidationError as error:
            raise ProxyUnavailable(
                f"{path} is damaged, though it is written whole",
                hint="Point `current` at an older whole directory beside it: ln -sfn NUMBER current",
            ) from error

    def named_addresses(self) -> frozenset[str]:
        """Also by older numbered directories: any of them may be made to hold again."""
        named: set[str] = set()
        for name in self.names():
            with suppress(FileNotFoundError):  # the endpoint was removed meanwhile
                for number in self._numbers(self._home(name)):
                    named |= self._addresses_in(self._home(name) / str(number))
        return frozenset(named)

    def _addresses_in(self, directory: Path) -> set[str]:
        try:
            traffic = Traffic.model_validate_json((directory / "traffic.json").read_bytes())
        except (FileNotFoundError, ValidationError):  # pruned meanwhile, or damaged
            return set()
        return {each.address for each in (traffic.active, traffic.candidate) if each}

    def write(self, name: str, traffic: Traffic) -> None:
        home = self._home(name)
        with self._writing, translate_storage_errors(f"writing the slot directory of {name}"):
            if not (home / "current").is_symlink():
                raise UnknownEndpoint(f"there is no endpoint {name}")
            self._switch(home, traffic)
        self._prune(home)

    def mend(self, name: str) -> bool:
        """Whether what Caddy reads was no longer what `traffic.json` says: then all of it is written anew."""
        home = self._home(name)
        with self._writing, translate_storage_errors(f"reading the slot directory of {name}"):
            traffic = self.read(name)
            current = home / "current"
            if all(_reads(current / file, text) for file, text in self._texts(traffic).items()):
                return False
            self._switch(home, traffic)
        self._prune(home)
        return True

    def _restore(self, home: Path) -> bool:
        """Whether there was a last state to go back to: a backup may have come back without its symlinks."""
        for number in sorted(self._numbers(home), reverse=True):
            try:
                Traffic.model_validate_json((home / str(number) / "traffic.json").read_bytes())
            except (FileNotFoundError, ValidationError):
                continue
            self._point(home, Path(str(number)))
            log.warning("an endpoint had lost its current slots", directory=str(home), restored=number)
            return True
        return False

    def addresses(self, traffic: Traffic) -> tuple[str, str]:
        """Of active and candidate, both alive at every moment: Caddy reads them at different ones."""
        active = check_address(traffic.active) if traffic.active else self._idle_address
        return active, check_address(traffic.candidate) if traffic.candidate else active

    def _home(self, name: str) -> Path:
        return self.root / check_name(name)

    def _read_bytes(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise UnknownEndpoint(f"there is no endpoint {path.parent.parent.name}") from error

    def _texts(self, traffic: Traffic) -> dict[str, str]:
        """Of the files that Caddy reads."""
        active, candidate = self.addresses(traffic)
        return {"active": active, "candidate": candidate, "cut": cut_of(traffic)}

    def _switch(self, home: Path, traffic: Traffic) -> None:
        files = {**self._texts(traffic), "traffic.json": traffic.model_dump_json(indent=1)}
        new = home / str(1 + max(self._numbers(home), default=0))
        current = home / "current"
        old = current.readlink() if current.is_symlink() else None
        try:
            new.mkdir()
            write_together(new, {name: text.encode() for name, text in files.items()})
            self._point(home, Path(new.name))
        except OSError:
            self._undo(home, new, old)
            raise

    def _point(self, home: Path, target: Path) -> None:
        link = home / "current.new"
        link.unlink(missing_ok=True)  # what a killed writer left
        link.symlink_to(target)
        link.replace(home / "current")
        sync_directory(home)

    def _undo(self, home: Path, new: Path, old: Path | None) -> None:
        """Back to what held before, also if only the last sync failed, and no litter."""
        link, current = home / "current.new", home / "current"
        with suppress(OSError):  # the error that led here is the one to tell
            if old is not None and current.readlink() != old:
                link.unlink(missing_ok=True)
                link.symlink_to(old)
                link.replace(current)
            link.unlink(missing_ok=True)
        if not current.is_symlink() or current.readlink() != Path(new.name):
            shutil.rmtree(new, ignore_errors=True)

    def _prune(self, home: Path) -> None:
        """The switch has been made, so what cannot be deleted now is only told; the next one tries again."""
        try:
            current = int((home / "current").readlink().name)
            for number in sorted(self._numbers(home))[:-KEPT]:
                if number != current:
                    shutil.rmtree(home / str(number))
        except OSError as error:
            log.warning("old slot directories are left", directory=str(home), error=str(error))

    def _numbers(self, home: Path) -> list[int]:
        return [int(path.name) for path in home.iterdir() if path.name.isdecimal()]


def _reads(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False


def cut_of(traffic: Traffic) -> str:
    return cut_for(traffic.weight, traffic.sticky) if traffic.candidate else cut_for(0)


def check_name(name: str) -> str:
    """A name is also a directory, so nothing that leads elsewhere is one."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidRequest(f"{name!r} is not an endpoint name", hint=f"Names match {NAME_PATTERN}.")
    return name


def check_address(upstream: Upstream) -> str:
    """Caddy takes any text for a dial and answers 502 for what it cannot read."""
    if not ADDRESS.fullmatch(upstream.address):
        raise InvalidRequest(f"{upstream.address!r} is not host:port", hint=f"Server {upstream.server_id}.")
    return upstream.address
