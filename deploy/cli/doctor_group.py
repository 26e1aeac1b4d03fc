"""The check of `carina doctor` for machines that train together: whether they are there, and reach each other."""

from typing import TYPE_CHECKING

from deploy.cli.doctor_api import CheckFailed
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.database import Database


def check_group(settings: Settings, database: "Database") -> str:
    """Try the way from this machine to each other machine of its group. Raises `CheckFailed`."""
    from shared.training.groups import PRESENT_S, machines_of
    from trainer.group import Group, find_interface
    from trainer.probe_port import try_to_connect

    group = Group.from_settings(settings)
    assert group is not None
    if not find_interface(group.address):
        raise CheckFailed(f"{group.address} is no address of this machine")
    if group.address.startswith("127.") and group.most > 1 and not group.rendezvous.startswith(("127.", "localhost")):
        raise CheckFailed(f"{group.address}, the address of this machine, cannot be reached by others")
    with database.begin() as session:
        machines = machines_of(session, group.name, seen_within_s=PRESENT_S)
        places = {row.node_rank: (row.address, row.port) for row in machines}
    here = places.get(group.node_rank, (None, None))[0]
    if here not in (None, group.address):
        raise CheckFailed(f"machine {group.node_rank} of the group runs at {here}, and this one is {group.address}")
    host, _, port = group.rendezvous.rpartition(":")
    ways = [(f"machine {rank}", *place) for rank, place in places.items() if rank != group.node_rank]
    if group.node_rank and 0 in places:
        ways.append(("the rendezvous", host, int(port)))
    closed = [
        f"{name} at {address}:{at} cannot be reached ({why})"
        for name, address, at in ways
        if at is not None and (why := try_to_connect(address, at))
    ]
    if closed:
        raise CheckFailed("; ".join(closed))
    if len(places) < group.least:
        raise CheckFailed(f"{len(places)} of {group.least} machines of the group {group.name} are there")
    return f"{len(places)} machines of the group {group.name} are there, and reached from {group.address}"
