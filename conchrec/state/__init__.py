"""The files of the state directory that several processes share."""
