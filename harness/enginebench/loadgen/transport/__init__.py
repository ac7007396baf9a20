"""Sends and receives bytes: with the C receiver and kernel time stamps, or with the event loop."""
