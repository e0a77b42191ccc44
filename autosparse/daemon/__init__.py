"""The daemon: it takes jobs from the queue and sees them through, and schedules in time.

place       folders of jobs, and what is found in them
job_process a job's process: begun, kept on its leash, stopped
left        how long a job still takes
earlier     an earlier job that did the same
backoff     how long a job waits before it is begun again
watches     artifacts that are checked again and again, and how it stands with them
alerts      what the end of a job means to others
results     what a job gave that can mean something
supervisor  jobs claimed, watched, renewed and ended
signing     messages to webhooks, signed
courier     alerts carried to webhooks
retention   what is forgotten after a while
beside      the threads of the two
"""
