"""Files of pictures and films: all knowledge of containers, codecs, image formats and time is here."""
