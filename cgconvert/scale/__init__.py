"""Many inputs: which files there are, which of them are this process's, and what became of each. No torch."""
