"""What `tcpa` ends with, for scripts, cron and batch systems."""

DONE = 0
"""All that was asked for is there."""
FAILURES = 1
"""The study is finished, with failed trials; or the code has a defect. It would end so again."""
WRONG_INPUT = 2
"""Something has to be corrected first: the command line, a space, data, weights."""
STOPPED = 3
"""A study has stopped before its end, or another driver runs it: the same command goes on."""
