"""Train and evaluate real models on real data: dense baselines, one-shot masks, SUBP.

recipes      Recipe, and the presets `short` and `full`
subp         the rule that says which blocks train, epoch by epoch
check        whether a model can train at all, and in which memory format
evaluate     accuracy, batch-norm recalibration, the one-shot evaluator of plans
sensitivity  accuracy loss of every choice of every layer
loop         TrainJob -> train -> TrainResult; checkpoints, resume
baseline     dense weights, trained once and cached
"""
