"""Filling the table of measured latencies: which rows are worth taking, and taking them.

request     what is asked for and answered
narrowing   which options are worth timing, decided from rows alone
asker       rows for a narrowing: known ones, and those that have to be measured
layer_job   one measurement as plain data, and how the measuring process carries it out
autotune    rows for every distinct layer of a model, and the options that the search chooses from
bisection   rows for a break-even map
in_place    rows for the structures that one model really has
forecast    what a tuning would do, without doing it

Import the modules themselves: nothing is loaded here, so that the child process starts quickly.
"""
