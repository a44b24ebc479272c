"""Run every method on a GPU that is not there, and hold what each costs against its budget.

`python -m benchmarks.fake_cuda` prints a line a run and ends with 1 where one fails or costs more
than benchmarks/fake_cuda/budgets.json allows; `--write` makes that table again.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.fake_cuda.device import pretend, why_not
from benchmarks.fake_cuda.sweep import COMMAND, KEYS, budgets, excess, sweep, write_budgets


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("only", nargs="*", help="how names of cases begin; none: all")
    parser.add_argument("--write", action="store_true", help="make the table of budgets again")
    parser.add_argument("--json", type=Path, help="write the rows to a file; 0 whatever they are")
    options = parser.parse_args()
    if reason := why_not():
        print(reason)
        return 1
    pretend()
    allowed = {} if options.write else budgets()
    rows, wrong = {}, 0
    for name, row in sweep(options.only):
        rows[name] = row
        found = excess(row, allowed.get(name, {}))
        if name not in allowed and not options.write:
            found.append(f"no budget; {COMMAND}")
        wrong += bool(found)
        numbers = " ".join(f"{key} {row[key]}" for key in KEYS if key in row)
        shown = found or (row.get("sites", []) if options.only else [])
        print("\n  ".join([f"{name}: {numbers}", *shown]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows))
        return 0
    if options.write:
        write_budgets(rows, torch=torch.__version__)
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
