# A client alone on its host: connects once, waits for a line, then tries at most twice; says what came of each.
import asyncio, subprocess, sys

kind, host = sys.argv[1], sys.argv[2]


def curl(*before):
    """A process for each try."""
    limit = [] if before else ["--connect-timeout", "1", "-m", "5"]
    ended = subprocess.run([*before, "curl", "-sS", *limit, f"http://{host}/"], capture_output=True, text=True)
    if ended.returncode != 0:
        raise OSError(ended.stderr.strip() or ended.returncode)
    return ended.stdout.strip()


async def get():
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, 80), 1)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    text = (await asyncio.wait_for(reader.read(), 5)).decode().strip()
    writer.close()
    return text.rsplit("\n", 1)[-1]


once = {"curl": curl, "killed": lambda: curl("timeout", "-s", "KILL", "1"), "asyncio": lambda: asyncio.run(get())}[kind]


def tries(most):
    for number in range(1, most + 1):
        try:
            return f"{once()} at try {number}"
        except (OSError, asyncio.TimeoutError) as error:
            failed = f"{type(error).__name__} {error} at try {number}"
    return failed


print(f"ready: {tries(1)}", flush=True)
sys.stdin.readline()
print(f"after: {tries(2)}", flush=True)
