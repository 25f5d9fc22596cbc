"""What has to be closed, and is at the end of a ``with`` block."""

from __future__ import annotations

from typing import Self


class Closing:
    """A subclass says what :meth:`close` does."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
