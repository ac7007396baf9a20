"""Engines in containers, through the Docker API: settings, start, watch, removal."""
