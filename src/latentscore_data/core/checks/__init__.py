"""The measures of ``lsdata check``: properties of the scored rows, each with a limit."""
