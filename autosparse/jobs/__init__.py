"""Jobs: what is asked of a daemon, kept in a database until it has been done.

states      what a job can be, and what it can become
records     a request, a job, a transition, a daemon: plain and frozen
roots       which files a job may name
verbs       what can be asked for, checked and turned into a command line
schema      the tables, and how older ones are brought up to date (migrations/)
store       a database that holds them
reading     what it holds, looked at
queue       jobs put in, claimed, kept, given back and ended
alerts      what happened that somebody ought to hear of
deliveries  which alerts were sent to whom
forgetting  jobs that ended long ago
daemons     who works on them, and who is gone
"""
