"""Playing recordings, complete ones and those that are still written."""
