"""What a run leaves behind, and what its verbs give back."""
