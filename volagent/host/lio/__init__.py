"""The kernel's own iSCSI target (LIO), set up through configfs."""
