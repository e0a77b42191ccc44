"""The host's processor, with the kernels of the native table."""

from autosparse.devices.kinds.cpu.device import Cpu as Cpu
