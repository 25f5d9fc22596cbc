"""The cap on what a run may spend, calls in flight included."""

from __future__ import annotations

import asyncio

from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.ledger import SpendTracker


class Budget:
    """A hard stop in dollars that counts what is in flight.

    A call may start only when everything spent, everything in flight at its worst, and this call at its worst fit. With a
    ``spend`` the other models of a run count as well; what they have in flight is taken as spent, and not waited for.
    """

    def __init__(self, cap: float | None, spend: SpendTracker | None = None) -> None:
        self.cap = cap
        self._spend = spend or SpendTracker()
        self._reserved = 0.0
        self._settled = asyncio.Event()

    @property
    def spent(self) -> float:
        return self._spend.spent

    async def reserve(self, worst: float) -> float:
        """Wait until the call fits. Raises :class:`StoppedError` when it cannot fit any more."""
        if self.cap is None:
            return 0.0
        while self.spent + self._spend.in_flight + worst > self.cap + 1e-12:
            if self._reserved <= 1e-12:
                raise StoppedError(
                    f"the next call could raise the cost above --max-cost {self.cap:g} (spent ${self.spent:.4f})",
                    "raise --max-cost and run the same command again; everything paid for is kept",
                )
            # What is in flight mostly turns out cheaper than its worst case.
            self._settled.clear()
            await self._settled.wait()
        self._reserved += worst
        self._spend.in_flight += worst
        return worst

    def settle(self, reserved: float, cost: float) -> None:
        """The call has come back and did cost so much."""
        self._reserved = max(0.0, self._reserved - reserved)
        self._spend.in_flight = max(0.0, self._spend.in_flight - reserved)
        self._spend.spent += cost
        self._settled.set()
