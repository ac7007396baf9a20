"""This machine: its CPUs and accelerators, installed packages, and the folders that the harness uses."""
