"""What a run leaves behind, and what its verbs give back.

findings     what a finished search knows
choosing     what to deploy of it
calibration  how well predictions met measurements
pareto       the content of pareto.json
publish      the files of a run, and the report made from them
amending     pareto.json after a further training
outcomes     what verbs give back
checked      what a check of an artifact gives back
"""
