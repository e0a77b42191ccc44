"""Steps from one layout of the tuning database to the next, run by Alembic when a database is opened.

A new step is a new file in `versions/`: its `down_revision` names the step before it, and its
revision becomes `HEAD` in `autosparse.database.schema`. Steps already released are never edited.
"""
