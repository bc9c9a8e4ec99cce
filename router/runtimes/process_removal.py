"""How a workload's remains go away: its processes first, then its control groups, then its folders."""

import os
import shutil
import stat
from pathlib import Path

import structlog

from router.runtimes.process_cgroups import Cgroups
from router.runtimes.process_homes import Home, Homes, Order, UnreadableRecord
from router.runtimes.process_leftovers import end_leftovers, find_strays

log = structlog.get_logger()


def remove_workload(home: Home) -> bool:
    """False: it runs, and must be killed first."""
    if not home.path.exists():
        return True
    with home.turn():
        try:
            home.launched()
        except UnreadableRecord:
            # Whom to signal is not known any more, but the child carries the home's name.
            end_leftovers(home.path, ())
            home.await_shim()
        if home.is_alive():
            return False
        bury(home)
    return True


def bury(home: Home) -> None:
    """Needs the turn, and no living shim."""
    order: Order | None = None
    try:
        order = home.read_order()
        settle(home)
    except UnreadableRecord as error:
        log.warning("only the folder of a workload can be deleted", error=error.message)
    discarded = home.discard()
    if order is not None:
        Cgroups.remove(map(Path, order.groups))
        if order.scratch is not None and is_ours(Path(order.scratch)):
            delete_folder(Path(order.scratch))
    if discarded is not None:
        delete_folder(discarded)


def settle(home: Home) -> None:
    """After its end: end what a killed shim could not end."""
    order = home.read_order()
    if order is not None and home.is_lost():
        end_leftovers(home.path, map(Path, order.groups))


def clear_leftovers(homes: Homes) -> None:
    """What was left when a router was killed in the middle of a launch or removal, or a shim at any time,
    or somebody has deleted the folder of what runs."""
    for owner in find_strays(homes.folder):
        log.warning("processes of a workload whose folder is gone are ended", owner=owner)
        end_leftovers(homes.folder / owner, ())
    for home in homes.all():
        with homes.passing_over_damage(home):
            if home.launched() is None:
                clear_unstarted(home)
            settle(home)
    for folder in homes.gone():
        delete_folder(folder)


def clear_unstarted(home: Home) -> None:
    """A shim on its way holds the turn, so what has not started once it is ours never will."""
    with home.turn():
        if home.launched() is None:
            bury(home)


def is_ours(folder: Path) -> bool:
    """In a place that is everybody's."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def delete_folder(folder: Path) -> None:
    """What cannot be deleted stays, with a warning, and is tried again at the next start."""
    try:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return  # the system cleans up scratch folders as well
        except PermissionError:
            make_writable(folder)
            shutil.rmtree(folder)
    except OSError as error:
        log.warning("the remains of a workload cannot be deleted", folder=str(folder), error=str(error))


def make_writable(folder: Path) -> None:
    """A trainer may have left folders that not even their owner may change."""
    for directory, names, _ in os.walk(folder):
        for name in names:
            path = Path(directory) / name
            if not path.is_symlink():
                path.chmod(0o700)
