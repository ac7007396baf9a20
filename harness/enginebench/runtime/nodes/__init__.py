"""The other nodes of an engine that spans several: a connection to a process on each, through which its ranks are started and watched.

Each node starts its own processes, under its own guardian; this package carries commands there, and logs and endings back. Does not know:
schedulers, units, adapters.
"""

from enginebench.runtime.nodes.channel import Channel, NodeLost, connect
from enginebench.runtime.nodes.followers import Follower, Followers, NodeMissing
from enginebench.runtime.nodes.place import OtherNode
from enginebench.runtime.nodes.server import FollowerProcesses

__all__ = ["Channel", "Follower", "FollowerProcesses", "Followers", "NodeLost", "NodeMissing", "OtherNode", "connect"]
