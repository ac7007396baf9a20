"""Records GPUs, CPUs, memory and the engine's processes or containers as time series while a load runs.

`sampler` is the program that reads the sources (one module per kind). Exports nothing: a load waits for the sampler to start, and the
sampler imports this package. Does not know: engines, metrics, validity.
"""
