"""kubernetes.io/iscsi: a disk (LUN) of an iSCSI target as a volume."""
