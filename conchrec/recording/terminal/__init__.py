"""A terminal without a display: the screen and the text of recorded output."""
