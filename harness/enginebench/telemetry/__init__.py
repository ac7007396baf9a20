"""What the machine did while a load ran: GPUs, processors, the engine's processes and containers, as time series, and figures of them.

`subject` is what was watched, `sampler` the program that watches it (with one source for each kind of thing), `hardware` the arithmetic.
Knows no engine, no metric of the samples and no verdict (`enginebench.validity` judges). Names nothing here: a load waits for
the sampler's start, and that imports this package.
"""
