"""What happened, one JSON object on each line: the catalogue of events, the log, and its verification."""
