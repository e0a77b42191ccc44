"""Where is measured: one face for this machine and for a node of a joined cluster.

host      the face, and what it tells of its devices
here      this machine, its measuring processes children of this process
desk      a host's jobs on behalf of a process elsewhere: begun, heard of, stopped
nodes     the nodes of a joined Ray cluster: which hardware each is, and whether it is idle
on_node   such a node as a host, reached through an actor that is pinned to it
opening   the host that a setting names

Import the modules themselves: Ray is loaded for a node alone.
"""
