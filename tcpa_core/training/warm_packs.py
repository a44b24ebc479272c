"""Backbones, data and packs that a worker keeps from one trial to the next."""

import gc
import os
from collections.abc import Callable, Hashable
from pathlib import Path

import torch

from tcpa_core.chain import pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import cache_root
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.groups import Group, Job
from tcpa_core.training.memory import release_cached
from tcpa_core.training.pack import Pack
from tcpa_core.training.probe import recorded_size
from tcpa_core.training.stand_ins import HERE
from tcpa_core.training.trial_data import TrialData, load_trial_data


class WarmPacks:
    """Groups of trials by configuration; each part is loaded when it is first asked for.

    Args:
        cache_dir: Decoded images; None: the user's cache folder.
        device: A torch device.
        sign: Called for every image decoded and before every batch: a sign of life.
    """

    def __init__(self, cache_dir: Path | None, device: str, sign: Callable[[], None]) -> None:
        self._cache_dir = cache_dir
        # What one worker has compiled the others load.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root(cache_dir) / "compiled"))
        self._device = device
        self._sign = sign
        self.stand_ins = HERE
        """Of files that this machine may lack."""
        self._backbones: dict[BackboneConfig, Backbone] = {}
        self._data: dict[tuple[BackboneConfig, DataConfig], TrialData] = {}
        self._groups: dict[Hashable, Group] = {}

    @property
    def groups(self) -> list[Group]:
        """All, in the order in which their first trials came."""
        return list(self._groups.values())

    def group(self, config: TrialConfig) -> Group:
        """The group for a configuration, with its backbone and data.

        Raises:
            DataError, WeightsError: One of them cannot be read.
        """
        key = (config.backbone, config.data, config.train.precision, *pack_key(config))
        if key not in self._groups:
            backbone = self._backbone(config.backbone)
            # What an earlier probe on this machine found; without it, memory alone sets a limit.
            pack = Pack(backbone, self._data_of(config, backbone), on_step=self._sign)
            known = recorded_size(pack, config, cache_dir=self._cache_dir)
            self._groups[key] = Group(pack, limit=known.members if known else None)
            pack.execution = known.execution if known else "eager"
        return self._groups[key]

    def find(self, trial: str) -> tuple[Group, Job] | None:
        """A trial that is held."""
        for group in self._groups.values():
            if trial in group.jobs:
                return group, group.jobs[trial]
        return None

    def make_room(self, needed: Group | None = None) -> bool:
        """Let go of what is not used at the moment; whether there was any.

        Packs without trials go with their backbones and data, unless another pack uses those. One
        whose trials wait for their turn keeps them, and makes again what else it had.

        Args:
            needed: Stays as it is.
        """
        others = {key: one for key, one in self._groups.items() if one is not needed}
        idle = [key for key, group in others.items() if not group.jobs]
        for key in idle:
            del self._groups[key]
        used = [group.pack for group in self._groups.values()]
        self._backbones = {
            key: one
            for key, one in self._backbones.items()
            if any(one is pack.backbone for pack in used)
        }
        self._data = {
            key: one for key, one in self._data.items() if any(one is pack.data for pack in used)
        }
        released = [group.pack.release() for group in others.values()]
        gc.collect()  # what failed has left cycles of frames and tensors
        return release_cached(torch.device(self._device)) or bool(idle) or any(released)

    def _backbone(self, config: BackboneConfig) -> Backbone:
        if config not in self._backbones:
            self._backbones[config] = load_backbone(
                self.stand_ins.backbone(config, self._cache_dir),
                device=self._device,
                recorded=True,
            )
        return self._backbones[config]

    def _data_of(self, config: TrialConfig, backbone: Backbone) -> TrialData:
        key = (config.backbone, config.data)  # images have the backbone's size and normalisation
        if key not in self._data:
            self._data[key] = load_trial_data(
                config,
                backbone,
                device=self._device,
                cache_dir=self._cache_dir,
                progress=lambda *_: self._sign(),
                stand_ins=self.stand_ins,
            )
        return self._data[key]
