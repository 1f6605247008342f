"""The bytes of PERSISTENT RESERVE IN and OUT, and of what disks answer (SPC-4 6.15, 6.16)."""

from volagent.host.reservations import (
    Capabilities,
    Kind,
    Order,
    Query,
    Registrant,
    encode_order,
    encode_parameters,
    encode_query,
    read_capabilities,
    read_full_status,
    read_keys,
    read_reservation,
)
from volagent.host.scsi import read_sense

KEY, OTHER = 0x7661_0000_0000_0002, 0x7647_0000_0000_0001


def test_order_says_its_action_its_type_and_the_length_of_its_parameters():
    kind = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
    command = encode_order(Order.PREEMPT_AND_ABORT, kind)
    assert command == bytes((0x5F, 5, 5, 0, 0, 0, 0, 0, 24, 0))
    command = encode_order(Order.REGISTER_AND_IGNORE, Kind.NONE)
    assert command == bytes((0x5F, 6, 0, 0, 0, 0, 0, 0, 24, 0))
    command = encode_order(Order.RESERVE, Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
    assert command[1:3] == bytes((1, 6))


def test_parameters_have_both_keys_and_whether_they_outlive_power():
    parameters = encode_parameters(KEY, OTHER, outlives_power=True)
    assert len(parameters) == 24
    assert parameters[:16].hex() == "76610000000000027647000000000001"
    assert parameters[16:] == bytes((0, 0, 0, 0, 1, 0, 0, 0))
    assert encode_parameters(0, KEY, outlives_power=False)[16:] == bytes(8)


def test_query_says_what_is_asked_and_how_much_may_be_answered():
    assert encode_query(Query.KEYS) == bytes((0x5E, 0, 0, 0, 0, 0, 0, 0x20, 0, 0))
    assert encode_query(Query.FULL_STATUS)[1] == 3


def test_keys_are_read_one_for_each_nexus():
    answer = bytes.fromhex("00000007 00000010 7661000000000002 7647000000000001")
    assert read_keys(answer + bytes(100)) == (7, (KEY, OTHER))
    assert read_keys(bytes.fromhex("00000000 00000000")) == (0, ())
    assert read_keys(answer[:-3]) == (7, (KEY,))  # the rest did not arrive
    assert read_keys(b"") == (0, ())


def test_reservation_is_read_with_its_holder_and_type():
    answer = bytes.fromhex("00000007 00000010 7661000000000002 00000000 00 05 0000")
    assert read_reservation(answer) == (7, KEY, 5)
    assert read_reservation(bytes.fromhex("00000003 00000000")) == (3, 0, 0)
    assert read_reservation(b"") == (0, 0, 0)


def test_capabilities_are_read_with_the_types_if_the_disk_tells_them():
    answer = bytes.fromhex("0008 01 81 ea 01 0000")
    assert read_capabilities(answer) == Capabilities(True, (1, 3, 5, 6, 7, 8))
    answer = bytes.fromhex("0008 00 00 00 00 0000")
    assert read_capabilities(answer) == Capabilities(False, ())
    assert read_capabilities(b"") == Capabilities(False, ())


def test_full_status_names_each_session_and_who_holds_the_reservation():
    name = b"iqn.2026-01.lab:one,i,0x00023d000001\0\0\0\0"
    transport = bytes((0x45, 0)) + len(name).to_bytes(2, "big") + name
    length = len(transport).to_bytes(4, "big")
    holder = KEY.to_bytes(8, "big") + bytes((0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 1)) + length
    other = OTHER.to_bytes(8, "big") + bytes((0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2)) + length
    body = holder + transport + other + transport
    answer = (9).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
    initiator = "iqn.2026-01.lab:one,i,0x00023d000001"
    assert read_full_status(answer + bytes(50)) == (
        Registrant(KEY, True, 5, 1, initiator),
        Registrant(OTHER, False, 0, 2, initiator),
    )
    assert read_full_status(answer[:20]) == ()


def test_sense_is_read_in_both_formats():
    fixed = bytes.fromhex("70 00 06 00000000 0a 00000000 2a 03 00 0000")
    assert read_sense(fixed) == (6, 0x2A, 3)
    assert read_sense(bytes.fromhex("72 05 20 00 00000000")) == (5, 0x20, 0)
    assert read_sense(b"") == (0, 0, 0)
