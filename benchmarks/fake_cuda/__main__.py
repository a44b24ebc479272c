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
from benchmarks.fake_cuda.sweep import COMMAND, budgets, excess, sweep, write_budgets


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("only", nargs="*", help="how names of cases begin; none: all")
    parser.add_argument("--write", action="store_true", help="make the table of budgets again")
    parser.add_argument("--json", type=Path, help="write the rows to a file, and judge nothing")
    options = parser.parse_args()
    if reason := why_not():
        print(reason)
        return 1
    pretend()
    rows = sweep(options.only)
    if options.json:
        options.json.write_text(json.dumps(rows))
        return 0
    if options.write:
        write_budgets(rows, torch=torch.__version__)
    allowed = budgets()
    wrong: dict[str, list[str]] = {}
    for name, row in rows.items():
        found = excess(row, allowed[name]) if name in allowed else [f"no budget; run {COMMAND}"]
        wrong |= {name: found} if found else {}
        numbers = " ".join(f"{key} {value}" for key, value in row.items() if key != "sites")
        print(f"{name}: {numbers}{' <- ' + '; '.join(found) if found else ''}")
        if found or options.only:
            print("".join(f"    {line}\n" for line in row.get("sites", [])), end="")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
