"""What is kept and shown of a training."""
