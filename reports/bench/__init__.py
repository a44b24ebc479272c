"""The table of a bench: from the studies of its cells to statistics over all of them."""
