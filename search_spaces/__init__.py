"""Search spaces that come with autosparse: one validated YAML file per device kind or experiment."""
