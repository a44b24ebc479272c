"""Published protocols: how the authors of a method trained and selected."""
