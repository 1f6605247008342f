"""What a server does besides answering: bind claims to volumes, and later provision and attach."""
