"""Comparing generators: statistics, suites, the run, the page and listening by people."""
