"""NVIDIA's GPUs, with the kernels of `autosparse.kernels.gpu`.

device      a GPU, or a slice of one
layer       a layer on it: copies with weights of their own, inputs that nobody has touched lately
clock       calls captured in CUDA graphs, timed by the GPU's own clock
faults      what becomes of the errors that CUDA reports
watch       clocks, power and what slows the GPU, beside every batch
limits      what the GPU can do at most, measured in a process of its own
roofline    lower bounds from that
libraries   what has to be installed

Nothing here loads torch before a layer is built.
"""

from autosparse.devices.kinds.cuda.device import Cuda as Cuda
