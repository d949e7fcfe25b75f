"""Articles: where they come from, how they become tokens, prompts and labels."""
