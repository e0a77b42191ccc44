"""One file per family of patterns; `autosparse.patterns.family` finds them."""
