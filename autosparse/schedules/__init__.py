"""Jobs that come back: when they are due, and what becomes of each due time.

times     cron expressions in time zones, with their changes of the clock
schedule  a schedule, and what to do now with what has fallen due
store     schedules in the database of jobs, and due times turned into jobs
"""
