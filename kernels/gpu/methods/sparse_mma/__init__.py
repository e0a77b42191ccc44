"""2:4 inside of tiles on sparse tensor cores."""
