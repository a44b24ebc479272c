"""Masks as the cache keeps them: read, of the size of their pictures, and resized with them."""

from collections.abc import Sequence

from tcpa_core.data._decode import Pixels, ResizeRule, header_size
from tcpa_core.data._hashes import unchanged
from tcpa_core.data._listing import Listing, SplitListing
from tcpa_core.data._masks import nearest, read_mask
from tcpa_core.errors import DataError


def decode_mask(
    listing: Listing,
    masks: SplitListing,
    images: Sequence[str],
    hashes: Sequence[str],
    rule: ResizeRule,
    index: int,
) -> Pixels:
    """One mask of a split as the cache stores it.

    Args:
        masks: Of `Listing.files`.
        images: The pictures that they belong to.
        hashes: Of the masks.
        rule: How the pictures are stored beside which they lie; masks take the nearest value.

    Returns:
        uint8 [h, w, 1].

    Raises:
        DataError: The file is no mask, its values are no classes, or its size is not its picture's.
    """
    assert listing.root is not None and listing.mask_values is not None
    place = str(listing.root / masks.keys[index])
    stored = unchanged(listing, masks, index, hashes[index], f"mask {place}")
    assert isinstance(stored, bytes)
    mask = read_mask(stored, place, listing.mask_values)
    height, width = mask.shape
    size = header_size(listing.root / images[index])
    if size is not None and size != (width, height):  # a picture without size is named by its own
        turned = (
            " One of the two was turned, which EXIF may have hidden."
            if size == (height, width)
            else ""
        )
        raise DataError(
            f"mask {place} has {width} x {height} pixels, its picture {images[index]} "
            f"{size[0]} x {size[1]}; a mask must have the size of its picture.{turned}"
        )
    return nearest(mask, *rule.stored_size(width, height))[..., None]
