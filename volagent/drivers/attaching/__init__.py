"""How a disk gets to a node, as far as its storage has a say: the controller's half."""
