"""The command line: parses, talks to the daemon over HTTP, prints.

It knows the daemon only by its API, and is the one place that ends the process. Modules that only
one command needs are imported by that command, so that `volagent get` starts in a moment.
"""
