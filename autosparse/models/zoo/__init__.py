"""The zoo: one file per family, found by `autosparse.models.registry` without being imported."""
