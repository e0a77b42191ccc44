"""What a run trained and how accurate it is: training jobs, and accuracies side by side."""
