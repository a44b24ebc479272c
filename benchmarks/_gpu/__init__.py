"""The parts of `benchmarks.gpu`: one file each, with a function `run(bench)`."""
