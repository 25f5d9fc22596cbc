"""The interface between a stage's work and the display that shows how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentscore_data.core.base.summary import Summary


class Progress:
    """Receive the progress of a stage; this one shows nothing. Displays override its methods."""

    def start(self, stage: str, total: int | None) -> None: ...

    def update(self, summary: Summary, in_flight: int) -> None: ...

    def finish(self, summary: Summary) -> None: ...
