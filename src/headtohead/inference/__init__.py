"""Writing summaries, and how likely a model finds the reference ones."""
