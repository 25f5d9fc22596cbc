"""The cost cap of a run, including calls in flight."""

from __future__ import annotations

import asyncio

from latentscore_data.core.base.errors import StoppedError
from latentscore_data.core.base.ledger import SpendTracker


class Budget:
    """A hard limit in US dollars that includes calls in flight.

    A call may start only if the amount spent, the maximum cost of the calls in flight, and the maximum cost of this
    call fit. With ``spend``, the other models of a run are included; their calls in flight count as spent and are not
    waited for.
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
        """Wait until the call fits. Raises :class:`StoppedError` if it can no longer fit."""
        if self.cap is None:
            return 0.0
        while self.spent + self._spend.in_flight + worst > self.cap + 1e-12:
            if self._reserved <= 1e-12:
                raise StoppedError(
                    f"the next call could raise the cost above --max-cost {self.cap:g} (spent ${self.spent:.4f})",
                    "raise --max-cost and run the same command again; everything paid for is kept",
                )
            # Calls in flight usually cost less than their maximum.
            self._settled.clear()
            await self._settled.wait()
        self._reserved += worst
        self._spend.in_flight += worst
        return worst

    def settle(self, reserved: float, cost: float) -> None:
        """Replace the reservation of a finished call by its actual cost."""
        self._reserved = max(0.0, self._reserved - reserved)
        self._spend.in_flight = max(0.0, self._spend.in_flight - reserved)
        self._spend.spent += cost
        self._settled.set()
