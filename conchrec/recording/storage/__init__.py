"""The files of recordings: where they are, how they are written, compressed and encrypted."""
