"""What runs, in which order; flows move names and counts, never bytes."""
