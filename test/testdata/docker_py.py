"""The usual life of containers with docker-py. Arguments: the image, a registry."""
import io
import sys
import tarfile
import threading
import time

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound

IMAGE, REGISTRY = sys.argv[1], sys.argv[2]
client = docker.from_env(timeout=60)
low = client.api


def equal(got, want):
    assert got == want, "got %r, want %r" % (got, want)


def tar_of(**files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return out.getvalue()


# The engine.
assert client.ping()
assert client.version()["ApiVersion"] and client.info()["ID"]
seen = []
stream = client.events(decode=True)
listener = threading.Thread(target=lambda: seen.extend(stream), daemon=True)
listener.start()

# Images: tag, push, pull, build, history, save, load.
image = client.images.get(IMAGE)
assert image.tag(REGISTRY + "/py/box", "1")
for line in client.images.push(REGISTRY + "/py/box", "1", stream=True, decode=True):
    assert "error" not in line, line
client.images.remove(REGISTRY + "/py/box:1")
equal(client.images.pull(REGISTRY + "/py/box", tag="1").id, image.id)
built, log = client.images.build(fileobj=io.BytesIO(b"FROM " + IMAGE.encode() + b"\nARG WHO=you\nRUN echo hello $WHO >/made\nCMD cat /made\n"),
                                 tag="py/built:1", buildargs={"WHO": "python"}, labels={"from": "py"}, rm=True)
assert any("Successfully built" in entry.get("stream", "") for entry in log)
equal(client.containers.run("py/built:1", remove=True), b"hello python\n")
assert len(built.history()) >= 2
try:
    client.images.build(fileobj=io.BytesIO(b"FROM " + IMAGE.encode() + b"\nRUN exit 3\n"))
    raise AssertionError("a failing build did not fail")
except BuildError as err:
    assert "3" in str(err), err
saved = b"".join(client.images.get("py/built:1").save(named=True))
client.images.remove("py/built:1", force=True)
equal(client.images.load(saved)[0].tags, ["py/built:1"])
equal([i.tags for i in client.images.list(filters={"label": "from=py"})], [["py/built:1"]])
try:
    client.images.get("no/such:1")
    raise AssertionError("an image that is not there was found")
except ImageNotFound:
    pass

# Running.
equal(client.containers.run(IMAGE, ["echo", "hi"], remove=True), b"hi\n")
try:
    client.containers.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 7"], remove=True)
    raise AssertionError("exit code 7 did not raise")
except ContainerError as err:
    equal((err.exit_status, err.stderr), (7, b"bad\n"))
try:
    client.containers.run(IMAGE, "nosuch", remove=True)
    raise AssertionError("a missing program did not raise")
except APIError as err:
    assert "nosuch" in str(err), err

network = client.networks.create("py-net", driver="bridge", labels={"a": "b"}, ipam=docker.types.IPAMConfig(
    pool_configs=[docker.types.IPAMPool(subnet="10.93.0.0/24", gateway="10.93.0.1")]))
volume = client.volumes.create("py-vol", labels={"a": "b"})
box = client.containers.run(
    IMAGE, ["sh", "-c", "echo out; echo err >&2; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done"], detach=True, name="py-box",
    network="py-net", volumes={"py-vol": {"bind": "/data", "mode": "rw"}}, mem_limit="64m", pids_limit=50, environment={"K": "v"}, labels={"tier": "front"},
    ports={"80/tcp": ("127.0.0.1", None)}, tmpfs={"/scratch": "size=1m"}, ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=200)],
    cap_drop=["ALL"], extra_hosts={"example": "10.9.9.9"}, stop_signal="SIGKILL", init=True,
    healthcheck={"test": ["CMD", "true"], "interval": 500000000}, log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}))
equal(box.status, "created")
box.reload()
equal(box.status, "running")
equal(box.attrs["HostConfig"]["Memory"], 64 << 20)
assert box.attrs["NetworkSettings"]["Networks"]["py-net"]["IPAddress"].startswith("10.93.0.")
assert box.ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
equal([c.name for c in client.containers.list(filters={"label": "tier=front", "status": "running"})], ["py-box"])

# Output, live and later.
while b"tick 1\n" not in box.logs(stderr=False):
    pass
equal(box.logs(stdout=False, stderr=True), b"err\n")
ticks = box.logs(stream=True, follow=True, stderr=False)
text = b""
while b"tick 3\n" not in text:
    text += next(ticks)
assert text.startswith(b"out\ntick 1\n"), text
ticks.close()
assert box.logs(tail=1, timestamps=True)[:2] == b"20"
attached = box.attach(stream=True, logs=True)
assert next(attached)

# exec.
code, out = box.exec_run(["sh", "-c", "echo $K; echo $X; id -u; exit 4"], environment={"X": "y"})
equal((code, out), (4, b"v\ny\n0\n"))
code, (out, err) = box.exec_run(["sh", "-c", "echo a; echo b >&2"], demux=True)
equal((code, out, err), (0, b"a\n", b"b\n"))
run = low.exec_create(box.id, ["cat"], stdin=True)
sock = low.exec_start(run["Id"], socket=True)
sock._sock.sendall(b"through stdin\n")
assert sock.read(8 + 14)[8:] == b"through stdin\n"
sock._sock.close()
equal(box.exec_run("pwd", workdir="/www", user="1000")[1], b"/www\n")

# Files.
assert box.put_archive("/data", tar_of(first=b"content"))
equal(box.exec_run("cat /data/first")[1], b"content")
chunks, stat = box.get_archive("/www/index.html")
equal(stat["name"], "index.html")
with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
    equal(archive.extractfile("index.html").read(), b"hello from a container\n")
box.exec_run("touch /new")
assert {"Path": "/new", "Kind": 1} in box.diff()
with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as archive:
    assert "new" in archive.getnames()

# Watching and changing.
stats = box.stats(stream=False)
assert stats["memory_stats"]["usage"] > 0 and stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and "eth0" in stats["networks"]
several = box.stats(decode=True)
assert next(several)["read"] < next(several)["read"]
assert box.top()["Titles"][0] == "UID"
box.update(mem_limit="96m", memswap_limit="192m")
box.pause()
box.reload()
equal(box.status, "paused")
box.unpause()
box.rename("py-renamed")
network.disconnect(box)
other = client.networks.create("py-other")
other.connect(box, aliases=["too"])
box.reload()
equal(list(box.attrs["NetworkSettings"]["Networks"]), ["py-other"])
committed = box.commit("py/committed", "1", message="m", author="a", changes=["CMD cat /new"])
equal(client.images.get("py/committed:1").id, committed.id)
while client.containers.get("py-renamed").attrs["State"]["Health"]["Status"] != "healthy":
    pass
box.restart(timeout=0)
box.kill("SIGTERM")
box.stop(timeout=1)
assert box.wait()["StatusCode"] in (137, 143)
try:
    box.exec_run("true")
    raise AssertionError("an exec in a stopped container")
except APIError as err:
    equal(err.status_code, 409)
box.start()
try:
    box.remove()
    raise AssertionError("a running container was removed")
except APIError as err:
    equal(err.status_code, 409)
box.remove(force=True)
try:
    client.containers.get("py-renamed")
    raise AssertionError("a removed container was found")
except NotFound:
    pass

# Terminals, waits, lists and what is refused.
typed = client.containers.create(IMAGE, ["sh", "-c", "read a; echo got $a; stty size; exit 5"], tty=True, stdin_open=True, name="py-typed", auto_remove=False)
sock = low.attach_socket(typed.id, params={"stdin": 1, "stdout": 1, "stream": 1})
typed.start()
typed.resize(height=30, width=100)
sock._sock.sendall(b"typed\n")
text = b""
while b"30 100" not in text:
    part = sock._sock.recv(4096)
    assert part, text
    text += part
assert b"got typed" in text, text
equal(typed.wait(condition="not-running")["StatusCode"], 5)
sock._sock.close()
assert b"got typed" in typed.logs(since=1, until=int(time.time()) + 60)
equal([c.name for c in client.containers.list(all=True, filters={"exited": 5})], ["py-typed"])
equal([c.name for c in client.containers.list(filters={"exited": 5})], [])
equal(client.containers.list(all=True, filters={"since": "py-typed"}), [])
for refused, status in ((lambda: typed.kill(), 409), (lambda: typed.pause(), 409), (lambda: low.resize("nosuch", 1, 1), 404), (lambda: typed.rename("py typed"), 400),
                        (lambda: client.containers.create(IMAGE, "true", name="py-typed"), 409), (lambda: client.containers.list(filters={"nosuch": "x"}), 400)):
    try:
        refused()
        raise AssertionError("not refused with %d" % status)
    except APIError as err:
        equal(err.status_code, status)
gone = client.containers.run(IMAGE, ["sleep", "1000"], detach=True, remove=True, pids_limit=20, restart_policy={"Name": "no"})
run = low.exec_create(gone.id, ["sh", "-c", "until [ \"$(stty size)\" = '20 70' ]; do sleep 0.01; done; stty size"], tty=True)
stream = low.exec_start(run["Id"], tty=True, stream=True)
low.exec_resize(run["Id"], height=20, width=70)
assert b"20 70" in b"".join(stream)
equal(low.exec_inspect(run["Id"])["ExitCode"], 0)
run = low.exec_create(gone.id, ["true"], user="nosuch")
assert b"nosuch" in low.exec_start(run["Id"])
equal(low.exec_inspect(run["Id"])["ExitCode"], 126)
gone.remove(force=True)
typed.remove()

# What is left goes, and was told.
assert client.df()
network.remove()
other.remove()
volume.remove()
unused = client.containers.create(IMAGE, "true", name="py-unused")
assert unused.id in client.containers.prune()["ContainersDeleted"]
client.networks.prune()
client.volumes.prune()
for name in ("py/committed:1", "py/built:1"):
    client.images.remove(name)
expected = {("container", "create"), ("container", "start"), ("container", "die"), ("container", "destroy"), ("container", "exec_create"), ("container", "health_status"),
            ("container", "rename"), ("container", "pause"), ("network", "create"), ("network", "connect"), ("network", "destroy"), ("volume", "create"), ("volume", "destroy"),
            ("image", "tag"), ("image", "push"), ("image", "pull"), ("image", "load"), ("image", "save")}
end = time.time() + 60
while True:
    actions = {(e.get("Type"), e.get("Action", "").split(":")[0]) for e in list(seen)}
    if expected <= actions:
        break
    assert time.time() < end, "no events %s among %s" % (sorted(expected - actions), sorted(actions))
    time.sleep(0.05)
stream.close()
print("docker-py is content")
