"""What any program needs and none of it is about training: text, streams, processes, regular expressions, secrets."""
