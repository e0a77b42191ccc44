"""What every timed section rests on: one at a time on a host, and what the host was like meanwhile.

lock        one measurement at a time on a host, and work that makes way for it
states      how far apart the processors in use lie, as a probe tells
histories   what this host was seen like, kept in the home folder
checkup     what the states cost here, for `doctor`
stopwatch   the only one in the code base: policy, and samples until the interval is narrow
turns       several things timed in turn, round by round
deciding    further turns for what a comparison left open
conditions  what else ran on the host while something was timed
"""
