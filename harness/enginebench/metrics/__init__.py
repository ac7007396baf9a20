"""Every figure: its unit, its formula and its statistics, computed from stored samples and telemetry. Pure."""
