"""Imported once in the process from which rendering workers are forked, so that imports and compilation happen once."""

import contextlib
import logging

import latentscore
from latentscore.compiling import end_second_process
from latentscore_data.core.scoring import renderer  # noqa: F401

# What is said here would tear the panel of the process that draws it; the scoring service says what takes so long.
logging.getLogger("latentscore").setLevel(logging.ERROR)

with contextlib.suppress(Exception):
    # A renderer that fails here fails again in each call, where the failure has a row to belong to.
    latentscore.render(latentscore.MusicConfig(), seconds=0.5, seed=0)
# The process that workers are forked from warns of children that it did not fork.
end_second_process()
