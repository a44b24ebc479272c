"""The files of masks that `tcpa predict` writes."""

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from tcpa_core.errors import ConfigError, not_written
from tcpa_core.training.export import check_free
from tcpa_core.training.trained_masks import Mask, save_mask


class MaskFiles:
    """Where the mask of each picture is written, as PNG.

    Args:
        folder: New, or empty; None: none is written.
        pictures: Their places below the folder that they share are those of the masks.

    Raises:
        ConfigError: The folder has other things in it, or two pictures would have one mask.
    """

    def __init__(self, folder: Path | None, pictures: Sequence[Path]) -> None:
        self.folder = folder
        self._places: dict[Path, Path] = {}
        if folder is None:
            return
        check_free(folder)
        shared = Path(commonpath([path.absolute().parent for path in pictures]))
        of: dict[Path, Path] = {}
        for path in pictures:
            place = folder / path.absolute().relative_to(shared).with_suffix(".png")
            if of.setdefault(place, path) != path:
                raise ConfigError(
                    f"--masks: the masks of {of[place]} and {path} would both be {place}; predict "
                    "them into two folders."
                )
            self._places[path] = place

    def write(self, path: Path, mask: Mask) -> str:
        """Write the mask of a picture.

        Returns:
            Where; "": nowhere.

        Raises:
            ConfigError, StorageError: It cannot be written.
        """
        place = self._places.get(path)
        if place is None:
            return ""
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            save_mask(mask, place)
        except OSError as err:
            raise not_written(f"--masks: {place}", err) from err
        return str(place)
