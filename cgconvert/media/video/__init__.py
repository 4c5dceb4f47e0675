"""Videos through PyAV: containers, codecs, colour, time."""
