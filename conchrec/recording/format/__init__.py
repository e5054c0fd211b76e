"""What a recording consists of: the values, and how they are written."""
