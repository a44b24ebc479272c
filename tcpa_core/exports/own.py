"""Our own form: what was trained, to be put on the backbone by `tcpa_core.load_trained`."""

from pathlib import Path

from safetensors.torch import save_file

from tcpa_core.exports.base import Form, Logits, Written
from tcpa_core.training.trained import TrainedModel, trained_model
from tcpa_core.training.trained_state import MODEL, read_trained

USAGE = """\
from tcpa_core import load_trained

model = load_trained("DIR")  # weights=FILE says where the backbone's weights lie
found = model.predict(["picture.jpg"])
print(found.names, found.top)
"""
SEGMENTING = """\
from tcpa_core import load_trained

model = load_trained("DIR")  # weights=FILE says where the backbone's weights lie
found = model.predict(["picture.jpg"])
mask = found.masks[0]  # uint8 [height, width]: number of the class of each pixel
print(found.top)  # the largest classes and their shares
"""


def _write(model: TrainedModel, folder: Path) -> Written:
    tensors = {name: t.contiguous() for name, t in model.source.tensors.items()}
    save_file(tensors, folder / MODEL, metadata={"format": "pt"})
    usage = SEGMENTING if model.segments else USAGE
    return Written(config={}, usage=usage, library="tcpa-search", has_backbone=False)


def _read(model: TrainedModel, folder: Path) -> Logits:
    again = read_trained(folder)
    return trained_model(again, model.config, model.pack.backbone).logits


FORM = Form(why_not=lambda model: None, write=_write, read=_read, tolerance=0.0)
