"""Training: the plan for this machine, the loop, and what it writes down."""
