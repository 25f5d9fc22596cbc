"""The version of the renderer."""

RENDERER_VERSION = "11"
"""Raised whenever an existing config sounds different; part of the cache keys of scores and of the tags of sound files."""
