"""One file per way to come to masks; `autosparse.train.methods.method` finds them."""
