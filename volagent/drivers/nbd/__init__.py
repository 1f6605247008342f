"""nbd.volagent.dev: exports of NBD servers as disks. `options.py` is pure, `driver.py` acts."""
