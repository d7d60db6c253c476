"""What a training leaves behind, and how it is read again."""
