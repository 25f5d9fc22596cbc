"""The benchmark: suites, the run, its statistics and page, and listening tests with people."""
