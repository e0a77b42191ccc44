"""What the command line says to a daemon, over HTTP.

address    where the daemon is, and whether a token may be sent there
exchange   a request and its answer, asked again where that is safe
problems   which error an answer stands for
records    what answers hold
events     server-sent events
daemon     the API, a method per request
following  a job watched to its end, whatever becomes of the connection
"""
