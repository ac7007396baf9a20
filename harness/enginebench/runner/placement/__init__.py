"""Where a plan is measured: on this machine, on a Ray cluster, by Slurm, in Kubernetes. One file for each placement, found by `find`.

The unit that travels is one server start with its loads. It goes out as a JSON file (`unit`), is measured by one command wherever it is
(`python -m enginebench.runner.placement.unit`), and comes back as files of a run folder, which the driver stores (`driver`). A placement
only starts the command somewhere and brings the files back. A plain `bench run` imports nothing of this package.
"""
