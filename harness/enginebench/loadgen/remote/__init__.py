"""Clients on other hosts: how they are reached, what their clocks say, and how their samples come back."""
