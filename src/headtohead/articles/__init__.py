"""Articles with their reference summaries: where they come from, and how they are read and cleaned."""
