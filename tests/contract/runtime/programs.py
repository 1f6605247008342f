"""The programs that tests run in containers; the test double knows them by these very words."""

ENDS_AT_ONCE = ("/bin/true",)
FAILS_AT_ONCE = ("/bin/sh", "-c", "exit 3")
ENDS_WHEN_ASKED = (
    "/bin/sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.02 & wait $!; done",
)  # fmt: skip
ENDS_WHEN_KILLED = ("/bin/sh", "-c", "trap '' TERM; while true; do sleep 0.02; done")
MISSING = ("/no/such/program",)
