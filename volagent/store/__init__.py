"""Durable objects with revisions and watches; the only home of `sqlite3`."""
