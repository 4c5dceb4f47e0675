"""What works on this machine and how fast: trials of engines and codecs, measurements, limits."""
