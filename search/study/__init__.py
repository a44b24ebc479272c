"""A study on disk: its folder, journal, events and state."""
