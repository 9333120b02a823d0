"""What a training leaves on disk, and going on from it."""
