"""A child process that does one job at a time and may die doing so.

worker      the parent's side: starts it, sends jobs, kills it when it hangs
child       what runs inside

Import the modules themselves: nothing is loaded here, so that the child process starts quickly.
"""
