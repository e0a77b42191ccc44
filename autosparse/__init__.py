"""autosparse."""
