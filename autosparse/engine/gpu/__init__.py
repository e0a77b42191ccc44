"""Whole models on GPUs: torch's own graph, its layers replaced, captured as one CUDA graph.

compiling   module in, callable out
select      which kernel runs each layer, and why
layer       a layer in torch's graph
program     torch's graph with the layers in it, in a type and on a device
runner      the program captured, its inputs and outputs, its clock
"""
