"""The user's connection to the proxy: its server, its sessions, and the targets that it reaches."""
