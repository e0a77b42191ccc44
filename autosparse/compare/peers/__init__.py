"""One file per engine, each with a `PEER`; `autosparse.compare.peer` finds them."""
