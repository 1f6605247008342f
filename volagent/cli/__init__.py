"""The command line: parses, talks to the daemon over HTTP, prints."""
