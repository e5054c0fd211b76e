"""The server that stands for the target: its login, its sessions, and its forwardings."""
