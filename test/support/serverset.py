#!/usr/bin/python3
"""A peer of server sets by kazoo, as Python programs use them; prints one line per event.
  serverset.py join HOSTS PATH HOST PORT SHARD|- [name=host:port ...] [--timeout S] [--status S] [--no-rejoin] [--auth user:password]
  serverset.py watch HOSTS PATH     the members that say ALIVE, as JSON, at each change"""
import json, sys, threading
from kazoo.client import KazooClient, KazooState

def option(name, default=None):
    if name not in sys.argv:
        return default
    at = sys.argv.index(name)
    value = sys.argv[at + 1]
    del sys.argv[at:at + 2]
    return value

def say(*words):
    print(*words, flush=True)

timeout = float(option('--timeout', '4'))
status = option('--status', 'ALIVE')
auth = option('--auth')
rejoin = '--no-rejoin' not in sys.argv
words = [word for word in sys.argv[1:] if not word.startswith('--')]
mode, hosts, path = words[:3]
client = KazooClient(hosts, timeout=timeout, auth_data=[('digest', auth)] if auth else None)
lost, again = threading.Event(), threading.Event()

def listener(state):
    say('STATE', state)
    if state == KazooState.LOST:
        lost.set()
    if state == KazooState.CONNECTED and lost.is_set():
        again.set()

client.add_listener(listener)
client.start(timeout=60)

if mode == 'watch':
    client.ensure_path(path)

    @client.ChildrenWatch(path)
    def changed(children):
        members = []
        for child in sorted(children):
            if not child.startswith('member_'):
                continue
            try:
                data, stat = client.get(path + '/' + child)
                member = json.loads(data.decode())
            except Exception as error:
                say('FAULT', child, repr(error))
                continue
            if member.get('status') == 'ALIVE':
                members.append(dict(name=child, owner='%016x' % stat.ephemeralOwner, **member))
        say('MEMBERS', json.dumps(members))
    threading.Event().wait()

host, port, shard = words[3:6]
def endpoint(text):
    name, _, number = text.rpartition(':')
    return {'host': name, 'port': int(number)}
member = {'serviceEndpoint': {'host': host, 'port': int(port)},
          'additionalEndpoints': {name: endpoint(at) for name, at in (word.split('=', 1) for word in words[6:])},
          'status': status}
if shard != '-':
    member['shard'] = int(shard)

def join():
    data = json.dumps(member, separators=(',', ':')).encode()
    say('MEMBER', client.create(path + '/member_', data, ephemeral=True, sequence=True, makepath=True))

join()
while True:
    if again.wait(0.2):
        again.clear()
        lost.clear()
        if rejoin:
            join()
