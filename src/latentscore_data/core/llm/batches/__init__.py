"""Provider batches: questions that a provider answers within a day at about half the price."""
