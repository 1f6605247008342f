"""The iSCSI initiator of this machine: open-iscsi for sessions, sysfs for everything they show."""
