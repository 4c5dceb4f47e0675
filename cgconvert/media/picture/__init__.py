"""Picture files through OpenCV: formats, orientation, metadata."""
