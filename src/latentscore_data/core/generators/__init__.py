"""Generators: the sources of configs that the benchmark compares, from random configs to models, with one protocol."""
