"""Filling the table of measured latencies, and keeping it.

stopwatch   the only one in the code base: policy, samples until the interval is narrow, interleaving
worker      a child process that verifies and times one kernel at a time, killed when it hangs
child       what runs inside that process
layer_job   one measurement as plain data, and how the child carries it out with real kernels
verify      kernel outputs against a float64 reference
database    one row per measurement, keyed by everything that can change a latency
transfer    the database's export, import and merge
upkeep      the database's garbage collection and self-check
roofline    lower bounds that no kernel on this machine can beat
narrowing   which options are worth timing, decided from rows alone
autotune    rows for every distinct layer of a model, and the options that the search chooses from

Import the modules themselves: nothing is loaded here, so that the child process starts quickly.
"""
