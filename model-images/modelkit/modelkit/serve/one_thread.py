"""Keeps scikit-learn to one thread per prediction, and rid of what it does to share one among threads.

Requests already run beside each other: threads inside each cost more than they give (a forest saved with
`n_jobs=-1` answers single rows 2.4 times slower). And to hand a forest's trees to threads, scikit-learn
saves and restores its configuration and Python's warning filters around every tree: two thirds of the time of
a single row, even with `n_jobs=1`.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def keep_to_one_thread() -> None:
    """Before scikit-learn is imported, since OpenMP reads its variable once."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from sklearn.utils.parallel import Parallel

    in_threads = Parallel.__call__

    def call(self: Any, tasks: Iterable[Task]) -> Any:
        if self.return_generator:
            return in_threads(self, tasks)
        # `function` of scikit-learn's wrapper is the task without the care for configuration and filters,
        # which in this thread are what they should be.
        return [getattr(work, "function", work)(*given, **named) for work, given, named in tasks]

    Parallel.__call__ = call
