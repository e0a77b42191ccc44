"""What a run measured: the table of layers, whole models in sessions, and the finalists."""
