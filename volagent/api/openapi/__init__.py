"""What the fields of all kinds are, and the OpenAPI documents that say so."""
