"""Memory and roofline models: does a model fit a machine, how fast can it be at most, and what limits it.

The names here are the interface; docs/physics.md explains them. Pure, except that `read_weights` reads file headers and the device `cpu` is
measured.
"""

from enginebench.physics.catalogue import Entry, devices, find_model, models, need_device, need_model, read_machine
from enginebench.physics.ceilings import Knee, all_touched, batch_needed, knees
from enginebench.physics.files import read_weights
from enginebench.physics.geometry import Model, Role
from enginebench.physics.machine import Device, Host, Machine
from enginebench.physics.memory import Budget, Fit, Reserve, fit
from enginebench.physics.model_fit import most_on_device, smallest
from enginebench.physics.placed import choose_parallelism
from enginebench.physics.popularity import Popularity, measured, uniform, zipf
from enginebench.physics.precision import Precision, precision
from enginebench.physics.roofline import Step, decode, prefill
from enginebench.physics.setting import Setting, Speculation
from enginebench.physics.weights import NOTHING, Offload, Weights, weigh

__all__ = [
    "NOTHING", "Budget", "Device", "Entry", "Fit", "Host", "Knee", "Machine", "Model", "Offload", "Popularity", "Precision", "Reserve",
    "Role", "Setting", "Speculation", "Step", "Weights", "all_touched", "batch_needed", "choose_parallelism", "decode", "devices",
    "find_model", "fit", "knees", "measured", "models", "most_on_device", "need_device", "need_model", "precision", "prefill",
    "read_machine", "read_weights", "smallest", "uniform", "weigh", "zipf",
]  # fmt: skip
