"""Plans: which layer is pruned in which pattern and how much, and what is said of many of them.

plan        one choice per layer, as YAML
pruning     a plan's zeros in a torch module
front       which of many points are Pareto-optimal
break_even  from which sparsity on a sparse kernel wins, by measured rows
"""
