"""This machine: its processors and accelerators, installed packages, and the folders that the harness uses."""
