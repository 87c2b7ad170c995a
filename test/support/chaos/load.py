# A client that knows nothing of service discovery: connects again and again, with one retry; prints what came of each as a line of JSON.
import json, socket, subprocess, sys, threading, time

kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
lock = threading.Lock()


def say(**what):
    with lock:
        print(json.dumps({"atMs": int(time.time() * 1000), **what}), flush=True)


def blocking():
    """Resolves each time and connects as most programs do: blocking, and for as long as the system likes."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    s = socket.socket(family, socket.SOCK_STREAM)
    try:
        s.connect(address)
    except OSError as error:
        s.close()
        return "unconnected", str(error)
    try:
        s.settimeout(3)
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        text = b""
        while True:
            part = s.recv(4096)
            if not part:
                break
            text += part
        who = text.decode().strip().rsplit("\n", 1)[-1]
        return ("ok", who) if who else ("cut", "ended without an answer")
    except OSError as error:
        return "cut", str(error)
    finally:
        s.close()


def proxied():
    """Through the proxy, which takes every connection: what ends before the first byte was not connected."""
    what, text = blocking()
    return ("unconnected", text) if what == "cut" and "timed out" not in text else (what, text)


def curl():
    """A new process each time, whose sockets do not block."""
    ended = subprocess.run(
        ["curl", "-s", "--connect-timeout", "2", "-m", "5", "-w", "%{time_connect}", f"http://{host}:{port}/"],
        capture_output=True, text=True,
    )
    lines = ended.stdout.split("\n")
    if ended.returncode == 0:
        return "ok", lines[0]
    connected = float(lines[-1] or 0) > 0
    return ("cut" if connected else "unconnected"), f"curl {ended.returncode} after {lines[-1]}"


once = {"blocking": blocking, "curl": curl, "proxied": proxied}[kind]


def run():
    while True:
        began = time.time()
        what, text = once()
        tries = 1
        if what == "unconnected":
            first = text
            what, text = once()
            tries = 2
            if what == "unconnected":
                text = f"{first}; then {text}"
        say(what=what, text=text, tries=tries, tookMs=int((time.time() - began) * 1000))
        time.sleep(0.02)


for _ in range(2):
    threading.Thread(target=run, daemon=True).start()
while True:
    time.sleep(60)
