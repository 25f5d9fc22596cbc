"""The workshop behind LatentScore: texts, vibes, configs, scores, training, benchmark, export."""

__version__ = "0.1.0"
