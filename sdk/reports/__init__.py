"""What the verbs say and leave to be looked at: progress, text, curves, pictures, pages. Runs no model."""
