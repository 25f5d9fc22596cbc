"""The studio: a page on this machine that plays typed vibes and shows the rows of a workspace."""
