"""The hand-over of a pod's mounts to a container runtime."""
