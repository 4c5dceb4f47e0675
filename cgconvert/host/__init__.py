"""What the machine offers: files, locks, memory, threads, channels between them."""
