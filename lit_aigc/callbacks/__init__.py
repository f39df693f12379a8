"""Lightning callbacks: what happens beside training: pictures, metrics, checkpoints, the progress bar."""
