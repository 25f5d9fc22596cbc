"""The studio: a web page, served on this machine, that plays vibes and shows the rows of a workspace."""
