"""Code that runs on the device, in Triton: nothing here is called from Python but by launching it.

The folder is imported under two names (`loading`): compiled for GPUs, and interpreted on the CPU, where
NumPy computes each operation. So these files import each other relatively, and nothing else of ours.

The interpreter lacks two things, for which kernels have the constant `INTERPRETED` (`numbers`): it
multiplies the bits of bfloat16 as if they were integers, and it cuts off what does not fit instead of
rounding. Nothing else depends on it.
"""
