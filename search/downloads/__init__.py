"""Public data sets from where they are published onto this machine."""
