"""Search: better configs for a vibe than the model's candidates, found by rendering and scoring more of them."""
