"""volagent: persistent volumes for containers on plain VMs, with Kubernetes' objects."""

__version__ = "0.1.0"
