"""What a study would run and cost, before it starts."""
