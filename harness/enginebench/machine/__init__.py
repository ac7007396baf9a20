"""This machine: its processors and accelerators, the installed packages, and the folders that the harness uses."""
