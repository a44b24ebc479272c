"""What the numbers say: tests, intervals, rankings."""
