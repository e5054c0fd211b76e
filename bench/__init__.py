"""Benchmarks: conchrec beside ``ssh -J`` through a stock sshd, on the same machine."""
