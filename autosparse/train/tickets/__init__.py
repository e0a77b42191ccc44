"""Several points from one training: cycles after its end, their tickets averaged, forked or voting.

records    TicketSettings, Tickets, ForkedResult: plain data and the files behind it
swapping   which units of a layer leave and which come in their place
cycles     open_trained, cycle_tickets: a trained run -> tickets and their mean
forks      fork, ensemble_accuracy: the mean re-pruned to a neighbouring plan; all tickets voting
sharing    group_by_training, train_shared: which plans of a front one training can serve
"""
