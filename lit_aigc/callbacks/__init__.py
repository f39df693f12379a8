"""Lightning callbacks: what happens besides training: pictures, metrics, checkpoints, the progress bar."""
