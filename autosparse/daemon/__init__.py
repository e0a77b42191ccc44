"""The daemon: it takes jobs from the queue and sees them through, and schedules in time.

place       folders of jobs, and what is found in them
job_process a job's process: begun, kept on its leash, stopped
left        how long a job still takes
earlier     an earlier job that did the same
backoff     how long a job waits before it is begun again
supervisor  jobs claimed, watched, renewed and ended
"""
