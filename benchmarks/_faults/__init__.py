"""Studies that are broken on purpose, and what must hold afterwards."""
