"""Train and evaluate real models on real data: dense baselines, one-shot masks, pruning methods.

recipes      Recipe: how to train, read from YAML; presets fill one for a data set's size
methods/     how masks come about while a model trains, a file for each
check        whether a model can train at all, and in which memory format
evaluate     accuracy, batch-norm recalibration, the one-shot evaluator of plans
sensitivity  accuracy loss of every choice of every layer
objective    the loss; schedules, averaging: learning rates, and moving averages of weights
tickets/     several configurations of one training, by averaged tickets
run, loop    TrainJob -> train -> TrainResult; checkpoints, resume
baseline     dense weights, trained once and cached
"""
