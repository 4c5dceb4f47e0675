"""From a folder of pictures to an installed model in some minutes."""
