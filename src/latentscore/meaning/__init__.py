"""Interpretation of English sentences: musical terms, words on axes, the starter set, and the answer made from them."""
