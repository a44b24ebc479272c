"""The verbs of `tcpa`, one file each, found by its name: it parses, calls one function, prints.

A file here defines `command`, whose parameters and docstring become options and help text. It is
imported for every help page, so what is heavy is imported inside `command`.
"""
