"""What a trace says in words: its spelling, its vocabulary, and the claims that it makes."""
