"""Data sets that come as one folder for each class, without splits."""

from pathlib import Path

from tcpa_core.data._official import Parts, folder_part, image_folders


def class_folder_parts(base: Path) -> Parts:
    """All images as train.

    Raises:
        DataError: A folder cannot be read, or a file in it does not end like an image.
    """
    found = image_folders(base, "")
    return Parts(
        root=base,
        class_names=tuple(found),
        class_source="the class folders",
        splits={"train": folder_part(found, "the class folders")},
    )
