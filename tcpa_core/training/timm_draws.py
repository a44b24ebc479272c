"""timm's augmentations with random numbers of a trial's own.

timm draws from the generators that a whole process shares (`random`, `numpy.random`). What is used
of it is loaded a second time here, apart from timm's own instances, with generators in their place
that each thread seeds for one picture. What they draw, and what is made of it, is timm's to the bit
after `random.seed(seed)`; the process's generators are neither read nor moved.
"""

import importlib.util
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageOps


class _Thread(threading.local):
    """What the picture of this thread draws from."""

    stdlib: random.Random | None = None
    numpy: np.random.RandomState | None = None


_thread = _Thread()


@contextmanager
def drawing_from(seed: int) -> Iterator[random.Random]:
    """Let timm's functions of this thread draw from a generator with this seed, and give it."""
    _thread.stdlib, _thread.numpy = random.Random(seed), None
    try:
        yield _thread.stdlib
    finally:
        _thread.stdlib = _thread.numpy = None


class _Random:
    """In place of the module `random`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_drawn(), name)


class _NumpyRandom:
    """In place of `numpy.random`: as after `numpy.random.seed(random.getrandbits(32))`."""

    def __getattr__(self, name: str) -> Any:
        if _thread.numpy is None:
            _thread.numpy = np.random.RandomState(_drawn().getrandbits(32))
        return getattr(_thread.numpy, name)


class _Numpy:
    """In place of the module `numpy`."""

    random = _NumpyRandom()

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class _ImageOps:
    """In place of `PIL.ImageOps`: keeps no bits where timm asks for none, which gives black. Pillow
    did so too, and refuses it from version 13 on; timm 1.0.31 meets the error."""

    def posterize(self, image: Image.Image, bits: int) -> Image.Image:
        """See Pillow."""
        return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)

    def __getattr__(self, name: str) -> Any:
        return getattr(ImageOps, name)


def _drawn() -> random.Random:
    if _thread.stdlib is None:
        raise RuntimeError("timm draws outside of drawing_from")
    return _thread.stdlib


_STAND_INS = (("random", _Random()), ("np", _Numpy()), ("ImageOps", _ImageOps()))


@cache
def timm_module(name: str) -> Any:
    """A module of timm of our own, for example "timm.data.auto_augment", with these generators."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sys.modules.get(name) is not module
    for attribute, stands_in in _STAND_INS:
        if hasattr(module, attribute):
            setattr(module, attribute, stands_in)
    return module
