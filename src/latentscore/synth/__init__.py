"""render(config, seconds, seed) -> Audio: the only way in."""

from latentscore.synth.engine import render

__all__ = ["render"]
