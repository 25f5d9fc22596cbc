"""The version of the sound."""

RENDERER_VERSION = "9"
"""Changes whenever an existing config sounds different; part of every score's cache key and of every file's tags."""
