"""The formats of a recording: values, and how they are written and read."""
