"""The words of a log: what the server sends, what a segment holds, and what rows come to."""
