"""The stages of the chain, one module each, and the chain itself."""
