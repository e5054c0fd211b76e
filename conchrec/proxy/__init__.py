"""One user's connection through the machine: the only place that sees SSH and recordings both."""
