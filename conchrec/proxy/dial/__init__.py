"""How a target is reached: names, handshakes, TCP connections and bandwidth."""
