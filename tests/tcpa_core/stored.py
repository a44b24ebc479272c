"""Random choices stored in a golden file, given to a pass in place of its own draws.

The authors' programs draw which groups a token uses in TCPA's first epochs, what dropout and drop
path leave out, and which rows VFPT transforms. A file that holds such draws tells what a pass with
them gives; here they are found by name and shape.

# Axes: L blocks, B samples, T tokens of a role, G groups of a pool, K chosen groups, P prompts,
# D width.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tcpa_core.methods import _random
from tcpa_core.methods.base import Step
from tcpa_core.philox import RESOLUTION
from tcpa_core.streams import Draws, Stream
from tests.tcpa_core import chance

Draw = Callable[..., Tensor]
"""Numbers of one purpose at one place: counters (without the step) to a tensor."""

SPEAKS_OF_CHANCE = re.compile("rand|drop|perm(?!is)|noise|sampled|choice|chosen|keep")
KEPT, DROPPED = 0.0, 1.0 - RESOLUTION
"""Random numbers that dropout keeps and drops at any rate."""


@dataclass
class Choices:
    """What a file stores of chance."""

    draws: dict[str, Draw] = field(default_factory=dict)
    """By purpose, as streams name it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of a trial that makes these choices."""
    trains: bool = False
    """Whether they are choices of training."""

    @property
    def step(self) -> Step:
        """The pass that makes them."""
        if not self.trains:
            return Step.evaluation(1)
        return Step(training=True, epochs=(0,), steps=(0,), streams=(Stream(0),))

    @contextmanager
    def fed(self) -> Iterator[None]:
        """Passes in here get the stored choices; any other draw is an error."""
        with ExitStack() as stack:
            if self.draws:
                mode = _Feeding(self.draws)
                stack.enter_context(patch.object(Stream, "generator", mode.generator))
                stack.enter_context(patch.object(Draws, "uniform", mode.uniform))
                stack.enter_context(patch.object(chance, "numbers", mode.numbers))
                # ours rounds a rate to the step of its numbers, the authors' do not
                stack.enter_context(patch.object(_random, "share_kept", lambda rates: 1 - rates))
                stack.enter_context(patch.object(chance, "share_kept", lambda rate: 1 - rate))
                stack.enter_context(mode)
            yield


class _Feeding(TorchFunctionMode):
    """Gives stored numbers wherever a step draws, and where rows of an evaluation are drawn."""

    def __init__(self, draws: Mapping[str, Draw]) -> None:
        super().__init__()
        self._draws = draws
        self._asked: list[tuple[torch.Generator, Tensor]] = []

    def uniform(
        self, purpose: str, rows: Tensor, count: int, *, layers: int = 1, layer: int | None = 0
    ) -> Tensor:
        """In place of `Draws.uniform`, of one member."""
        found = self._draw(purpose)
        wanted = range(layers) if layer is None else [layer]
        numbers = torch.stack([found(i) for i in wanted])
        if numbers.dtype == torch.int64:  # the numbers of what is chosen, which draws the smallest
            numbers = torch.ones(len(wanted), count).scatter(1, numbers, 0.0)
        numbers = numbers.view(len(wanted), *rows.shape[:-1], count)
        return numbers if layer is None else numbers[0]

    def numbers(self, step: Step, purpose: str, layer: int, rows: Tensor, count: int) -> Tensor:
        """In place of `chance.numbers`."""
        return self._draw(purpose)(layer).view(*rows.shape, count)

    def generator(self, purpose: str, *counters: int) -> torch.Generator:
        """In place of `Stream.generator`, whose last counter is the block."""
        made = torch.Generator()
        self._asked.append((made, self._draw(purpose)(*counters[-1:])))
        return made

    def _draw(self, purpose: str) -> Draw:
        if purpose not in self._draws:
            raise AssertionError(f"a pass draws {purpose!r}, which the file does not store")
        return self._draws[purpose]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("generator")
        numbers = next((n for made, n in self._asked if made is asked), None)
        if asked is None or numbers is None:
            return func(*args, **kwargs)
        assert func is torch.randperm, func
        return numbers


def read(
    arrays: Mapping[str, Tensor], hparams: Mapping[str, Any], settings: Mapping[str, Any]
) -> Choices:
    """The random choices among a file's arrays.

    Args:
        arrays: All of the file.
        settings: Of the file's trial, by dotted path.

    Raises:
        ValueError: An array speaks of chance and has no place here.
    """
    unknown = {
        key: value
        for key, value in {**arrays, **_listed(hparams)}.items()
        if key not in {*hparams["backbone_keys"], *hparams["method_param_keys"], "x", "y", "y_soft"}
        and not key.startswith(("out.", "grad."))
    }
    depth = hparams["geometry"]["depth"]
    stacked = _by_block(unknown, depth)
    choices, method = Choices(), settings["methods"][-1]
    readers = [_read_drop_path, _read_dropout]
    if method == "tcpa":
        readers.append(_read_groups)
        stacked |= _chosen_in_results(arrays, hparams, stacked)
    if settings.get("vfpt.location") == "random" or method == "vfpt":
        readers.append(_read_rows)
    about = {**settings, "method": method, "depth": depth, "hparams": hparams,
             "batch": len(arrays["x"]), "tokens": arrays["pos_embed"].shape[1] - 1}  # fmt: skip
    for reader in readers:
        stacked = reader(choices, stacked, about)
    lost = [k for k, v in stacked.items() if SPEAKS_OF_CHANCE.search(k.lower()) and v.numel() > 1]
    if lost:
        raise ValueError(f"{lost[0]!r} speaks of a random choice that no pass here can be given")
    if choices.trains:  # what is not stored is off
        off = {path: 0.0 for path in settings if path.endswith("dropout")}
        off |= {path: 0 for path in settings if path == "tcpa.random_epochs"}
        choices.settings = off | choices.settings
    return choices


def _listed(hparams: Mapping[str, Any]) -> dict[str, Tensor]:
    """Choices that stand in the JSON as lists of whole numbers."""
    found = {}
    for key, value in hparams.items():
        if isinstance(value, list) and value and re.search("ind(ex|ic)|rows|select", key.lower()):
            try:
                found[key] = torch.tensor(value)
            except (TypeError, ValueError):
                continue
    return {key: value for key, value in found.items() if value.dtype == torch.int64}


def _by_block(arrays: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Arrays of single blocks, told apart by a number in their names, stacked in order."""
    groups: dict[str, list[tuple[int, Tensor]]] = {}
    for key, value in arrays.items():
        number = re.search(r"(?<![a-z0-9])[a-z]*?(\d+)(?!.*\d)", key.lower())
        stem = key if number is None else key[: number.start(1)] + "*" + key[number.end(1) :]
        groups.setdefault(stem, []).append((int(number[1]) if number else -1, value))
    out = {}
    for stem, members in groups.items():
        if len(members) == depth > 1:
            out[stem] = torch.stack([value for _, value in sorted(members, key=lambda m: m[0])])
        else:
            out |= {stem.replace("*", str(number)): value for number, value in members}
    return out


def _role(key: str) -> str:
    """Whose tokens or prompts a name speaks of; empty: of all."""
    low = key.lower()
    if "cls" in low or re.search(r"(^|[._])c($|[._])", low):
        return "cls"
    return "image" if re.search(r"image|img|patch|(^|[._])i($|[._])", low) else ""


def _chosen_in_results(
    arrays: Mapping[str, Tensor], hparams: Mapping[str, Any], found: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Where a file says that it selects at random, and stores the selection among its results."""
    says = any(value is True for key, value in hparams.items() if "random" in key.lower())
    if not says or any(_is_of_groups(key) for key in found):
        return {}
    return {f"random.{r}": arrays[f"out.topk_{r}"] for r in ("cls", "image")
            if f"out.topk_{r}" in arrays}  # fmt: skip


def _is_of_groups(key: str) -> bool:
    low = key.lower()
    words = ("rand", "topk", "top_k", "select", "ind", "idx", "group", "choice", "chosen", "perm")
    return any(word in low for word in words) and "drop" not in low and "noise" not in low


def _read_groups(
    choices: Choices, arrays: Mapping[str, Tensor], about: Mapping[str, Any]
) -> dict[str, Tensor]:
    """TCPA: groups that tokens take in the first epochs."""
    tables: dict[str, Tensor] = {}
    rest = {}
    for key, value in arrays.items():
        if not _is_of_groups(key) or value.ndim < 2:
            rest[key] = value
        elif _role(key):
            tables[_role(key)] = _scores(value, _role(key), about)
        else:  # the class token's first, then the image tokens'
            whole = value.view(about["depth"], about["batch"], -1, value.shape[-1])
            tables |= {
                "cls": _scores(whole[:, :, :1], "cls", about),
                "image": _scores(whole[:, :, 1:], "image", about),
            }
    for role, count in {"cls": 1, "image": about["tokens"]}.items():
        groups = about[f"tcpa.num_{role}_prompts"]
        if tables and groups == about[f"tcpa.top_k_{role}"]:  # all are taken, whatever is drawn
            tables[role] = torch.zeros(about["depth"], about["batch"], count, groups)
    for role, scores in tables.items():
        choices.draws[f"tcpa.random_{role}_groups.{role}"] = lambda layer, s=scores: s[layer]
        choices.settings["tcpa.random_epochs"] = 1
        choices.trains = True
    return rest


def _scores(value: Tensor, role: str, about: Mapping[str, Any]) -> Tensor:
    """Scores (L, B, T, G) whose largest ones choose as the stored numbers do: indices of groups
    (..., K or all in order), a 0/1 mask (..., G), or uniform numbers whose smallest ones choose."""
    groups, top_k = about[f"tcpa.num_{role}_prompts"], about[f"tcpa.top_k_{role}"]
    table = value.reshape(about["depth"], about["batch"], -1, value.shape[-1])
    is_mask = table.dtype in (torch.bool, torch.uint8) and table.shape[-1] == groups
    if table.dtype.is_floating_point and table.shape[-1] == groups:
        return -table
    if is_mask and bool((table.sum(-1) == top_k).all()):
        return table.double()
    chosen = table[..., :top_k].long()
    scores = torch.zeros(*table.shape[:3], groups, dtype=torch.float64)
    ranks = torch.arange(chosen.shape[-1], 0, -1, dtype=torch.float64)
    return scores.scatter(-1, chosen, ranks.expand(chosen.shape))


def _read_dropout(
    choices: Choices, arrays: Mapping[str, Tensor], about: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Masks of the prompts' dropout (L, B, P, D), of all pools or pool by pool."""
    parts: dict[str, Tensor] = {}
    rest = {}
    for key, value in arrays.items():
        is_mask = re.search("drop|keep", key.lower()) and value.ndim >= 3
        if not is_mask:
            rest[key] = value
            continue
        zeroed = re.search("dropped|zeroed", key.lower()) is not None
        parts[_role(key)] = value == 0 if zeroed else value
    if parts:
        order = sorted(parts, key=["", "cls", "image"].index)
        masks = [p if p.ndim == 4 else p[None] for p in (parts[role] for role in order)]
        mask = torch.cat([m.double() for m in masks], dim=2)
        largest = float(mask.max())
        rate = 1 - 1 / largest if largest > 1 else _rate("drop", about["hparams"])
        bits = torch.where(mask > 0, KEPT, DROPPED)
        name = f"{about['method']}.prompt_dropout"
        choices.draws[name] = lambda layer, b=bits: b[layer]
        choices.settings[name] = rate
        choices.trains = True
    return rest


def _read_drop_path(
    choices: Choices, arrays: Mapping[str, Tensor], about: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Which samples skip a branch: (L, 2, B), or (2 L, B), of 0 and 1 or already scaled."""
    rest = {}
    for key, value in arrays.items():
        if not re.search("path|stochastic", key.lower()):
            rest[key] = value
            continue
        kept = value.reshape(2 * about["depth"], about["batch"])
        bits = torch.where(kept > 0, KEPT, DROPPED)
        choices.draws["backbone.drop_path"] = lambda layer, b=bits: b[layer]
        choices.settings["train.drop_path"] = _rate("path", about["hparams"])
        choices.trains = True
    return rest


def _read_rows(
    choices: Choices, arrays: Mapping[str, Tensor], about: Mapping[str, Any]
) -> dict[str, Tensor]:
    """VFPT: rows (L, n) or (n) that are transformed, also in evaluation."""
    rest = {}
    for key, value in arrays.items():
        if not _is_of_groups(key) and "row" not in key.lower():
            rest[key] = value
            continue
        rows = value.long().expand(about["depth"], -1) if value.ndim == 1 else value.long()
        for purpose in ("vfpt.rows", "vfpt.evaluation_rows"):
            choices.draws[purpose] = lambda layer, r=rows: r[layer]
        choices.settings |= {"vfpt.location": "random"}
    return rest


def _rate(word: str, hparams: Mapping[str, Any]) -> float:
    """A rate that the file names, said for the file itself before what the authors train with."""
    named = {}
    for key, value in _flat(hparams):
        if word in key.lower() and isinstance(value, float | int) and 0 < value < 1:
            named[key] = float(value)
    own = [value for key, value in named.items() if "official" not in key.lower()]
    return (own or list(named.values()) or [0.1])[0]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
