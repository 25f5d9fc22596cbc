"""The synthesizer: notes and theory, styles, score, voices, mix; ``render.render`` and ``stream.stream`` are the ways in."""
