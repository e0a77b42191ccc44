"""What a run is about: model, layers, data, host and types, and what each stage is asked for."""
