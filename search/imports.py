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


@contextmanager
def importing(*modules: str) -> Iterator[None]:
    """Import in a thread what will be needed, while this one starts what is mostly waited for."""

    def load() -> None:
        with suppress(ImportError):  # whoever uses the module says so
            for module in modules:
                importlib.import_module(module)

    thread = threading.Thread(target=load, name="imports", daemon=True)
    with without_gc():
        thread.start()
        try:
            yield
        finally:
            thread.join()
