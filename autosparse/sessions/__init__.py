"""Measuring sessions: whole models run in turn, in a process of their own, as `search` and `bench` do.

apart      the process, the host's measuring lock, and what comes back
in_turn    contestants take their turns; every state of the host has latencies of its own
artifact   a deployed artifact by itself
operators  what the operators of a compiled model take inside whole runs

Who takes part, and what is made of the figures, is for `pipeline` and `compare` to say.
"""
