"""redis-py, which nobody of this project wrote, against a running cluster.

redis_py.py calls PORT                 its calls, one after the other
redis_py.py count PORT SECONDS         increments and prints: acknowledged, unknown, the counter at the end
redis_py.py sentinel PORTS LEADER      all nodes as sentinels: writes through the death of the leader, which is announced
                                       by "writing"; prints how many writes were acknowledged, and who leads at the end
"""

import sys
import time

import redis
from redis.sentinel import MasterNotFoundError, Sentinel


def calls(client):
    assert client.ping() is True
    assert client.set("k", "v") is True and client.get("k") == b"v"
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", xx=True, get=True) == b"v"
    assert client.mset({"a": 1, "b": 2}) is True
    assert client.mget("a", "none", "b") == [b"1", None, b"2"]
    assert client.incr("a") == 2 and client.decrby("a", 5) == -3
    assert client.append("k", "xyz") == 4 and client.strlen("k") == 4
    assert client.delete("a", "b", "none") == 2
    assert client.exists("k", "k") == 2 and client.type("k") == b"string"
    assert client.getdel("k") == b"wxyz" and client.getset("k", "1") is None
    assert client.setnx("k", "2") is False
    assert client.info("raft")["raft_role"] in ("leader", "follower")
    assert client.config_get("save") == {"save": ""}
    assert client.command_count() > 20 and "get" in client.command()
    pipe = client.pipeline(transaction=False)
    for _ in range(100):
        pipe.incr("pipe")
    assert pipe.execute() == list(range(1, 101))
    client.mset({f"scan:{number}": number for number in range(100)})
    keys = list(client.scan_iter("scan:*", count=7))
    assert len(keys) == len(set(keys)) == 100
    try:
        client.execute_command("NOSUCH", "a")
        raise AssertionError("there is no such command")
    except redis.ResponseError as error:
        expected = "unknown command 'NOSUCH', with args beginning with: 'a' "
        assert str(error) == expected, error


def times(client):
    assert client.set("t", "v", ex=1000) is True and client.ttl("t") == 1000
    assert client.set("t", "w", px=500_000, nx=True) is None
    assert client.set("t", "w", keepttl=True, get=True) == b"v" and 990 <= client.ttl("t") <= 1000
    assert client.expire("t", 2000, gt=True) is True and client.expire("t", 3000, lt=True) is False
    assert client.expireat("t", 99999999999) is True and client.expiretime("t") == 99999999999
    assert client.pexpiretime("t") == 99999999999000 and client.persist("t") is True
    assert client.ttl("t") == -1 and client.pttl("none") == -2
    assert client.getex("t", ex=100) == b"w" and client.getex("t", persist=True) == b"w"
    assert client.setex("t", 50, "x") is True and client.psetex("t", 50_000, "y") is True
    assert client.ttl("t") == 50 and client.expire("t", -1) is True and client.exists("t") == 0
    client.set("soon", "v", px=20)
    end = time.monotonic() + 10
    while client.get("soon") is not None:
        assert time.monotonic() < end, "it stays"
    for wrong in (lambda: client.set("t", "v", ex=0), lambda: client.setex("t", -1, "v")):
        try:
            wrong()
            raise AssertionError("there is no such time")
        except redis.ResponseError as error:
            assert "invalid expire time in 'set" in str(error), error


def transactions(client):
    client.delete("a", "b")
    pipe = client.pipeline(transaction=True)
    pipe.set("a", 1).incr("a").get("a").mget("a", "none").ttl("a").exists("a").dbsize()
    assert pipe.execute()[:6] == [True, 2, b"2", [b"2", None], -1, 1]
    pipe.set("a", "x").incr("a").set("b", 1)
    result = pipe.execute(raise_on_error=False)
    assert result[0] is True and isinstance(result[1], redis.ResponseError) and result[2] is True
    assert client.get("b") == b"1", "one that is refused does not keep the others from being done"
    pipe.set("b", 2).execute_command("NOSUCH")
    try:
        pipe.execute()
        raise AssertionError("there is no such command")
    except redis.ResponseError:
        assert client.get("b") == b"1", "nothing is done"
    with client.pipeline() as pipe:
        pipe.watch("b")
        client.set("b", 5)
        pipe.multi()
        pipe.set("b", 6)
        try:
            pipe.execute()
            raise AssertionError("b was changed")
        except redis.WatchError:
            assert client.get("b") == b"5"
    # Its own loop tries until nobody is in between.
    disturbed = []

    def add(pipe):
        number = int(pipe.get("b"))
        if len(disturbed) < 3:
            disturbed.append(client.incr("b"))
        pipe.multi()
        pipe.set("b", number + 1)

    assert client.transaction(add, "b") == [True]
    assert client.get("b") == b"9" and len(disturbed) == 3
    session = client.execute_command("SESSION", "OPEN")
    for _ in range(3):
        assert client.execute_command("SESSION", session, 1, "INCRBY", "b", 10) == 19
    assert client.flushdb() is True and client.dbsize() == 0
    client.set("a", 1)
    assert client.flushall(asynchronous=True) is True and client.get("a") is None


def count(client, seconds):
    client.set("n", 0)
    print("writing", flush=True)
    acknowledged = unknown = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            client.incr("n")
            acknowledged += 1
        except redis.exceptions.ResponseError as error:
            # CLUSTERDOWN and TRYAGAIN: certainly not done.
            unknown += str(error).startswith("INDETERMINATE")
    print(acknowledged, unknown, int(client.get("n")))


def sentinel(ports, leader):
    """Each library call finds the leader by itself; a value is counted when it is acknowledged."""
    nodes = [("127.0.0.1", port) for port in ports]
    sentinels = Sentinel(nodes, socket_timeout=1)
    for name in ("raftkv", "mymaster"):
        assert sentinels.discover_master(name) == ("127.0.0.1", leader), name
        others = {("127.0.0.1", port) for port in ports if port != leader}
        assert set(sentinels.discover_slaves(name)) == others, name
    try:
        sentinels.discover_master("other")
        raise AssertionError("there is no such master")
    except MasterNotFoundError:
        pass
    listener = redis.Redis(port=next(port for port in ports if port != leader)).pubsub()
    listener.psubscribe("*")
    assert listener.get_message(timeout=5)["type"] == "psubscribe"
    master = sentinels.master_for("mymaster", socket_timeout=1)
    replica = sentinels.slave_for("mymaster", socket_timeout=1)
    master.set("first", 1)
    assert master.role()[0] == b"master" and replica.role()[0] == b"slave"
    assert replica.get("first") == b"1"
    print("writing", flush=True)
    acknowledged = []
    switched = None
    stood_still = 0
    last = end = time.monotonic()
    while switched is None or len(acknowledged) < 200:
        assert time.monotonic() < end + 30, "no other leader was found"
        number = len(acknowledged)
        try:
            # Written twice it is the same, so that what is unknown may be repeated.
            master.set(f"key:{number}", number)
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            continue
        now = time.monotonic()
        stood_still, last = max(stood_still, now - last), now
        acknowledged.append(number)
        message = listener.get_message(timeout=0)
        if message and message["channel"] == b"+switch-master":
            words = message["data"].decode().split(" ")
            assert words[0] in ("raftkv", "mymaster"), words
            switched = words[1:]
    assert stood_still < 10, stood_still
    assert switched[:2] == ["127.0.0.1", str(leader)], switched
    new = sentinels.discover_master("mymaster")
    assert new[1] != leader and switched[2:] == ["127.0.0.1", str(new[1])], (switched, new)
    assert master.role()[0] == b"master"
    for number in acknowledged:
        for reader in (master, replica):
            assert reader.get(f"key:{number}") == str(number).encode(), number
    print(len(acknowledged), new[1])


if sys.argv[1] == "calls":
    for version in (2, 3):
        with redis.Redis(port=int(sys.argv[2]), protocol=version) as one:
            one.delete("k", "a", "b", "pipe")
            calls(one)
            times(one)
            transactions(one)
elif sys.argv[1] == "sentinel":
    sentinel([int(port) for port in sys.argv[2].split(",")], int(sys.argv[3]))
else:
    count(redis.Redis(port=int(sys.argv[2])), float(sys.argv[3]))
