"""Plan, sample, schedule, place, record and resume studies; the `tcpa` command."""
