"""Imported once in the process from which rendering workers are forked, so that imports and compilation happen once."""

import contextlib
import logging

import latentscore
from latentscore.compiling import end_second_process
from latentscore_data.core.scoring import renderer  # noqa: F401

# Output here would disturb the panel of the parent process; the scoring service prints the reason of a slow start.
logging.getLogger("latentscore").setLevel(logging.ERROR)

with contextlib.suppress(Exception):
    # A renderer that fails here also fails in each call, where the failure is recorded for its row.
    latentscore.render(latentscore.MusicConfig(), seconds=0.5, seed=0)
# The process that workers are forked from warns about children that it did not fork.
end_second_process()
