"""Registers a key at a disk and reserves it for registrants, so that both outlive a power cut.

python3 persistent_reservation.py DEVICE KEY
"""

import fcntl
import os
import struct
import sys

REGISTER = 0x401870C8  # IOC_PR_REGISTER; the kernel's sd asks for APTPL with it
RESERVE = 0x401070C9  # IOC_PR_RESERVE
WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 3  # PR_WRITE_EXCLUSIVE_REG_ONLY

device = os.open(sys.argv[1], os.O_RDWR)
key = int(sys.argv[2], 0)
fcntl.ioctl(device, REGISTER, struct.pack("=QQII", 0, key, 0, 0))
fcntl.ioctl(device, RESERVE, struct.pack("=QII", key, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, 0))
