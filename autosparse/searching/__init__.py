"""The search: from tables of measured latencies and losses to plans on the accuracy-latency front.

It sees tables and callables, never kernels or trainers, so it runs on a laptop from a recorded table.

    space      what may be chosen: YAML in search_spaces/
    problem    the measured table of one model on one machine, and what it predicts for a plan
    knapsack   the exact optimum of the additive table at any budget
    core       what no optimum can contain, so that the solver sees little
    knobs      the few numbers the study varies, and the plan they mean
    samplers   name -> Optuna sampler
    trials     settings that go into a study, trials and result that come out
    storage    the journal or database of a study, and its locks
    owner      the only writer of a study: ask, tell, retry, reconcile
    evaluations  accuracies by plan, on disk the moment they are known
    told       what has been found so far, for whoever watches
    study      `run_study`: the loop around all of it
    pool       where evaluations run: in this process, or
    parallel   on Ray
"""
