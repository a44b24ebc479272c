"""How many trials a worker trains together."""

from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_space

from search.launch import _Run


@pytest.mark.parametrize("size", [1, 3])
def test_a_user_may_cap_what_a_measurement_would_find(size: int) -> None:
    run: Any = SimpleNamespace(
        _space=make_space(budget={"trials": 80, "pack_size": size}), _past=None, _num_gpus=0
    )
    assert _Run._measured_slots(run, dispatcher=None, workers=2) == size
