"""The HTTP API: the same verbs as on the command line, for programs and for people elsewhere."""
