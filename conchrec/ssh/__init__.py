"""SSH as the RFCs and OpenSSH's PROTOCOL files say it. Knows nothing of policy or recording."""
