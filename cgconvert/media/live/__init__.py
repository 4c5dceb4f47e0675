"""Live pictures: cameras, screens and streams to read from, and windows, devices and streams to show on."""
