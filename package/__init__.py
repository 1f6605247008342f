"""How volagent becomes a Debian package; no part of the daemon."""
