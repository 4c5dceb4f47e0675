"""What a training is computed on: device, precision, processes."""
