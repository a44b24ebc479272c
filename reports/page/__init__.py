"""The page: tables, templates, HTML."""
