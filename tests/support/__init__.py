"""Real peers for the tests: sshd, agents, clients, terminals, and the proxy as a process."""
