"""The Kubernetes REST conventions over a store."""
