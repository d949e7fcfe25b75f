"""GPT-2 with an attention variant, and the folders that it is kept in."""
