"""Heavy imports in less time."""

import gc
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def without_gc() -> Iterator[None]:
    """Imports make objects that stay: looking for garbage among them is a sixth of their time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def import_meanwhile(*modules: str) -> threading.Thread:
    """Import in a thread what will be needed, while this one starts what is mostly waited for."""

    def load() -> None:
        with without_gc(), suppress(ImportError):  # whoever uses the module says so
            for module in modules:
                importlib.import_module(module)

    thread = threading.Thread(target=load, name="imports", daemon=True)
    thread.start()
    return thread
