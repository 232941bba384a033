"""What makes a server keep the log of a database, and what of it is there."""
