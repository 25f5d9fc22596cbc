"""The synthesizer: notes and theory, styles, score, voices, mix. The entry points are ``render.render`` and ``stream.stream``."""
