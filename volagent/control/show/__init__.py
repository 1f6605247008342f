"""A storage node's half of attaching: its volumes are shown to those that have them, by objects."""
