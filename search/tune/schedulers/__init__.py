"""The schedulers that a space can name, one file each."""
