"""Files of pictures and videos: all knowledge of containers, codecs, image formats and time is here."""
