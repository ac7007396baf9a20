"""Runs engines in containers through the Docker API."""
