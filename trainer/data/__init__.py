"""Pictures to training batches."""
