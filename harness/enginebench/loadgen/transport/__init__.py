"""How bytes are sent and received: the receiver in C with kernel time stamps, or the event loop."""
