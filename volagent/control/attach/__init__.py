"""Which node has which networked disk: VolumeAttachments, and the status of nodes."""
