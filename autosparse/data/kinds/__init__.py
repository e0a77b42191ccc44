"""The kinds of data set: one file each, named as users name the kind, found without being imported."""
