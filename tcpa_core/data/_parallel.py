"""Run a function over many items with all cores, results in order, few of them in memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def num_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Like `map`, on one thread per core. Pillow, hashlib and zlib release the interpreter lock.

    `Executor.map` would start on all items at once and keep every result that the caller has not
    taken yet; here at most a few per thread are under way.
    """
    workers = num_cores()
    with ThreadPoolExecutor(workers, thread_name_prefix="tcpa-data") as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            # Some slack beyond one per thread, so that a slow item does not leave the others idle.
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
