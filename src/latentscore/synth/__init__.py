"""The synthesizer: notes and theory, styles, score, voices, mix; ``engine.render`` is the way in."""
