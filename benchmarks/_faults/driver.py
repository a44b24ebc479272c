"""The `tcpa` command with stub training: every other part of the driver is the real one.

    python -m benchmarks._faults.driver resume STUDY --root ROOT [--address ADDRESS]

How workers are placed stands in `placement.json` of the folder ROOT.
"""

import json
import sys
from pathlib import Path
from typing import Any

import search.options
from search.cli import main
from search.driver.placement import Placement

if __name__ == "__main__":
    root = Path(sys.argv[sys.argv.index("--root") + 1])
    options = json.loads((root / "placement.json").read_text())

    def placed(**asked: Any) -> Placement:
        return Placement(**{**asked, **options})

    search.options.Placement = placed  # type: ignore[misc, assignment]
    main()
