"""What an English sentence asks for: musical terms, words along axes, the starter set, and the answer made of them."""
