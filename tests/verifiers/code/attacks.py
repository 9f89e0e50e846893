"""Programs that attack the sandbox or the verdict, as data: what each tries, and how it says that it has won.

A program has won if it prints WON, prints or returns what only the host knows, gets a right verdict, or leaves a trace.
`{secret}`, `{folder}`, `{port}`, `{socket}`, `{abstract}` and `{pid}` are replaced by a file, a folder, a TCP port, two
sockets and a process of the host. What could do harm if it succeeded aims at these alone.
"""

from __future__ import annotations

from typing import NamedTuple

SYSTEM = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*arguments):
    return libc.syscall(*[a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments])
def tried(*arguments):
    if call(*arguments) >= 0:
        print("WON", arguments, flush=True)
"""


class Attack(NamedTuple):
    """A program that tries to win."""

    name: str
    source: str
    calls: bool = False
    """Its function f is called; otherwise, it is a script."""


def script(name: str, source: str) -> Attack:
    """Return an attack that runs as a script."""
    return Attack(name, source)


def system(name: str, source: str) -> Attack:
    """Return a script that makes system calls by number."""
    return Attack(name, SYSTEM + source)


def answer(name: str, source: str) -> Attack:
    """Return an attack whose function f is asked for what only the host knows."""
    return Attack(name, source, calls=True)


def attempt(name: str, *lines: str) -> Attack:
    """Return a script that wins if its lines raise nothing."""
    body = "\n".join(f"    {line}" for line in lines)
    return Attack(
        name,
        f"try:\n{body}\nexcept BaseException as error:\n    print(type(error).__name__)\nelse:\n    print('WON')\n",
    )


FORGE = """
import json, os, struct
def frame(*message):
    data = json.dumps(message).encode()
    os.write(4, struct.pack("=I", len(data)) + data)
"""
HUNT = """
import gc, sys
def hunt(seen):
    for each in seen:
        if isinstance(each, str) and each.startswith("expected-"):
            return each
        if isinstance(each, dict):
            for one in list(each.values()):
                if isinstance(one, str) and one.startswith("expected-"):
                    return one
"""
EQUAL = "    __eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n    __hash__ = lambda self: 0\n"

VERDICTS = (
    answer("an object that equals everything", f"class A:\n{EQUAL}f = lambda x: A()"),
    answer("a text that equals everything", f"class A(str):\n{EQUAL}f = lambda x: A('a')"),
    answer("a number that equals everything", f"class A(int):\n{EQUAL}f = lambda x: A(7)"),
    answer("a list that equals everything", f"class A(list):\n{EQUAL}    __len__ = lambda self: 1\nf = lambda x: A()"),
    answer(
        "a class in place of a value",
        "class M(type):\n    __eq__ = lambda a, b: True\n    __hash__ = lambda a: 0\nclass A(metaclass=M): pass\nf = lambda x: A",
    ),
    answer("not a number", "f = lambda x: float('nan')"),
    answer("a forged answer", FORGE + "def f(x):\n    frame('value', 'expected-'); frame('value', True)"),
    answer("forged answers beforehand", FORGE + "for _ in range(9): frame('value', True, None)\nf = lambda x: True"),
    answer("a forged verdict", FORGE + "frame('passed'); frame('passed')\nf = lambda x: 'passed'"),
    answer("a forged report", FORGE + 'os.write(4, b\'{"ended": "exited", "code": 0, "cpu": 0}\')\nf = lambda x: 1'),
    answer(
        "an endless frame",
        "import os, struct\nos.write(4, struct.pack('=I', 2**32 - 1))\nwhile 1: os.write(4, b'x' * 65536)",
    ),
    answer(
        "an answer without an end", "import os, struct\nos.write(4, struct.pack('=I', 1000) + b'[')\nf = lambda x: 1"
    ),
    answer(
        "an answer nested deeply",
        "import os, struct\ndata = b'[' * 10**6\nos.write(4, struct.pack('=I', len(data)) + data)\nf = 1",
    ),
    answer("an answer that is no JSON", "import os, struct\nos.write(4, struct.pack('=I', 3) + b'NaN')\nf = 1"),
    answer(
        "trees that are none", FORGE + "def f(x):\n    frame('value', ['d', [1, 2]], 3); frame('value', ['zz', {}])"
    ),
    answer("a huge integer", "f = lambda x: 1 << 10**7"),
    answer("a decimal with a huge exponent", "from decimal import Decimal\nf = lambda x: Decimal('1e999999999')"),
    answer("integers with one hash", "f = lambda x: {i * (2**61 - 1): 0 for i in range(300)}"),
    answer("a cycle", "a = []\na.append(a)\nf = lambda x: a"),
    answer("an iterator without an end", "import itertools\nf = lambda x: itertools.count()"),
    answer("the exit code of success", "import os\nos._exit(0)"),
    answer("an exit in the call", "import os\ndef f(x): os._exit(0)"),
    answer("SystemExit in the call", "def f(x): raise SystemExit(0)"),
    answer("KeyboardInterrupt in the call", "def f(x): raise KeyboardInterrupt"),
    answer(
        "an error whose text cannot be made", "class E(Exception):\n    __str__ = lambda self: 1/0\ndef f(x): raise E"
    ),
    answer("the channel is closed", "import os\nos.close(4)\nf = lambda x: 1"),
    answer("all descriptors are closed", "import os\nos.closerange(0, 99)\nf = lambda x: 1"),
    answer(
        "our functions are replaced",
        "import sys\np = sys.modules['inside.programs']\np.claims.encode = lambda *a: True\np.send = lambda m: None\nf = lambda x: 1",
    ),
    answer(
        "Python's own are replaced",
        "import builtins, json\njson.dumps = lambda *a, **k: '[\"value\", true]'\nbuiltins.isinstance = lambda *a: True\nf = lambda x: 1",
    ),
    answer(
        "the expected value in the frames",
        HUNT
        + "def f(x):\n    frame = sys._getframe()\n    while frame:\n        if found := hunt([frame.f_locals, frame.f_globals]): return found\n        frame = frame.f_back",
    ),
    answer(
        "the expected value in the heap",
        HUNT
        + "def f(x):\n    return hunt(gc.get_objects()) or hunt(r for o in gc.get_objects() for r in gc.get_referents(o))",
    ),
    answer(
        "the expected value in memory",
        "import ctypes, re\ndef f(x):\n    start = id(f) & ~0xFFFFF\n    found = re.search(rb'expected-\\w+', ctypes.string_at(start, 0x100000).replace(b'expected-\\\\w', b''))\n    return found and found[0].decode()",
    ),
    answer(
        "the expected value in other descriptors",
        "import os\ndef f(x):\n    for number in range(64):\n        try:\n            data = os.pread(number, 1 << 20, 0)\n        except OSError:\n            continue\n        if b'expected-' in data:\n            return data[data.index(b'expected-'):].decode()",
    ),
    answer(
        "a trace function",
        "import sys\ndef trace(frame, event, arg):\n    for value in frame.f_locals.values():\n        if isinstance(value, str) and value.startswith('expected-'): print('WON')\n    return trace\nsys.settrace(trace)\nf = lambda x: 1",
    ),
    answer(
        "an answer by a thread after the end",
        "import os, threading, time\ndef late():\n    while 1: os.write(4, b'\\x0f\\0\\0\\0[\"value\", true]')\nthreading.Thread(target=late, daemon=True).start()\nf = lambda x: 1",
    ),
    script("words of success", "print('All tests passed'); print('PASS'); print('1.0')"),
    script("no output, and success", "raise SystemExit(0)"),
    script(
        "the expected output in other descriptors",
        "import os\nfor number in range(3, 64):\n    try: data = os.pread(number, 1 << 20, 0) or os.read(number, 1 << 20)\n    except OSError: continue\n    print('WON', number, data[:100])",
    ),
    script(
        "a write to other descriptors",
        "import os\nfor number in range(3, 64):\n    try: os.write(number, b'x'); print('WON', number)\n    except OSError: pass",
    ),
)
"""Attacks on the verdict itself."""

PROCESSES = (
    attempt("fork", "import os", "os.fork()"),
    attempt("fork, in a loop", "import os", "while os.fork() is not None: pass"),
    attempt("a shell", "import subprocess", "subprocess.run(['/bin/sh', '-c', 'echo'], check=True)"),
    attempt("os.system", "import os", "assert os.system('true') == 0"),
    attempt("posix_spawn", "import os, sys", "os.posix_spawn('/bin/true', ['true'], {})"),
    attempt(
        "multiprocessing", "import multiprocessing", "multiprocessing.get_context('fork').Process(target=print).start()"
    ),
    script(
        "exec",
        "import os, sys\nfor path, *arguments in ((sys.executable,), ('/lib64/ld-linux-x86-64.so.2', sys.executable)):\n    try: os.execv(path, ['x', *arguments, '-I', '-c', 'print(\"WON\")'])\n    except OSError: pass",
    ),
    system(
        "vfork, clone and clone3",
        "tried(56, 17, 0, 0, 0, 0)\ntried(56, 0x10000000 | 17, 0, 0, 0, 0)\ntried(58)\nbuffer = ctypes.create_string_buffer(88)\ntried(435, ctypes.addressof(buffer), 88)",
    ),
    system("execveat", "tried(322, -100, b'/bin/true', 0, 0, 0)\ntried(59, b'/bin/true', 0, 0)"),
    system(
        "new namespaces",
        "for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000): tried(272, flag)\ntried(308, 0, 0)",
    ),
    system("ptrace", "for pid in range(1, 40): tried(101, 16, pid, 0, 0)\ntried(101, 0x4206, os.getppid() or 1, 0, 0)"),
    system(
        "memory of other processes",
        "buffer = ctypes.create_string_buffer(64)\nfor pid in range(1, 40):\n    if pid != os.getpid(): tried(310, pid, ctypes.addressof(buffer), 1, ctypes.addressof(buffer), 1, 0)",
    ),
    system(
        "signals to others",
        "for pid in [-1, 0, os.getppid(), {pid}, *range(2, 60)]:\n    if pid not in (os.getpid(),) and pid is not None:\n        for signal in (0, 9): tried(62, pid, signal)",
    ),
    system(
        "signals to threads of others",
        "for pid in [os.getppid(), {pid}, *range(2, 60)]:\n    if pid != os.getpid():\n        tried(234, pid, pid, 9); tried(200, pid, 9)",
    ),
    attempt("kill the process group", "import os", "os.killpg(0, 9)"),
    attempt("a descriptor of a process", "import os", "os.pidfd_open(os.getpid())"),
    system(
        "limits of others",
        "buffer = ctypes.create_string_buffer(16)\nfor pid in [{pid}, os.getppid() or 1, *range(2, 40)]: tried(302, pid, 0, 0, ctypes.addressof(buffer))",
    ),
    system(
        "priorities",
        "tried(141, 0, 0, -20)\ntried(144, 0, 1, b'\\x01\\0\\0\\0')\ntried(251, 1, 0, 0)\ntried(203, {pid}, 8, b'\\x01\\0\\0\\0\\0\\0\\0\\0')",
    ),
    system("the filter is replaced", "tried(317, 1, 0, 0)\ntried(157, 22, 0, 0, 0, 0)\ntried(157, 4, 1, 0, 0, 0)"),
    system("another user", "for number in (105, 106, 113, 114, 117, 119, 122): tried(number, 0, 0, 0)"),
    system(
        "capabilities", "tried(126, b'\\x22\\x05\\x08\\x20' + bytes(4), b'\\xff' * 24)\ntried(157, 47, 2, 21, 0, 0)"
    ),
    attempt("higher limits", "import resource", "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
    script(
        "orders to the zygote",
        "import socket, array\nfor number in range(3, 64):\n    try:\n        s = socket.socket(fileno=number); s.send(b'{}'); print('WON')\n    except OSError: pass",
    ),
)
"""Attacks on other processes, and on what the program may be."""

FILES = (
    script(
        "a secret of the host",
        "import os\nfor path in ['{secret}', '/proc/1/root{secret}', '/proc/self/cwd/../../..{secret}', '../..{secret}']:\n    try: print(open(path).read())\n    except OSError: pass",
    ),
    script(
        "accounts of the host",
        "for path in ('/etc/passwd', '/etc/shadow', '/etc/hosts', '/root/.bashrc', '/etc/machine-id'):\n    try: open(path).read(); print('WON', path)\n    except OSError: pass",
    ),
    script(
        "/proc",
        "import os\nfor path in ('/proc/1/environ', '/proc/self/maps', '/proc/self/mem', '/proc/cpuinfo', f'/proc/{os.getppid()}/environ', '/proc/{pid}/environ'):\n    try: open(path, 'rb').read(1); print('WON', path)\n    except OSError: pass",
    ),
    script(
        "/sys and devices",
        "for path in ('/sys/kernel/mm', '/dev/mem', '/dev/kmsg', '/dev/tty', '/dev/ptmx', '/dev/vda', '/dev/sda', '/dev/kvm', '/dev/fuse'):\n    try: open(path, 'rb'); print('WON', path)\n    except OSError: pass",
    ),
    script(
        "a file in a folder of the host",
        "import os\nfor path in ('{folder}/won', '/proc/self/root{folder}/won', '/var/tmp/won', '/home/won', '/run/won', '/usr/won', '/won'):\n    try: open(path, 'w').write('x'); print('WON', path)\n    except OSError: pass",
    ),
    script(
        "the standard library",
        "import os, sys\nfor path in (os.__file__, os.path.dirname(os.__file__) + '/won.py', sys.executable or '/x', '/usr/lib/won'):\n    for mode in ('r+', 'a'):\n        try: open(path, mode); print('WON', path)\n        except OSError: pass",
    ),
    script(
        "files are moved and removed",
        "import os\nfor action in (os.remove, os.rmdir, lambda p: os.rename(p, p + '2'), lambda p: os.truncate(p, 0), lambda p: os.chmod(p, 0o777), lambda p: os.utime(p), lambda p: os.link(p, '/tmp/x')):\n    for path in ('{secret}', '{folder}'):\n        try: action(path); print('WON', path)\n        except OSError: pass\nfor path in (os.__file__, '/usr/lib', '/'):\n    try: os.utime(path); print('WON', path)\n    except OSError: pass",
    ),
    system(
        "mount",
        "tried(165, b'none', b'/', 0, 0x20 | 0x1000, 0)\ntried(165, b'none', b'/usr/lib', 0, 0x20, 0)\ntried(165, b'proc', b'/tmp', b'proc', 0, 0)\ntried(165, b'tmpfs', b'/usr', b'tmpfs', 0, 0)\ntried(166, b'/tmp', 2)\ntried(428, -100, b'/', 1)\ntried(430, b'tmpfs', 0)",
    ),
    system("another root", "tried(161, b'/tmp')\ntried(155, b'/', b'/')\ntried(161, b'/')"),
    system("device files", "tried(133, b'/tmp/mem', 0o20666, 0x101)\ntried(259, -100, b'/tmp/disk', 0o60666, 0xfe00)"),
    system(
        "handles of files",
        "buffer = ctypes.create_string_buffer(200)\ntried(303, -100, b'/', ctypes.addressof(buffer), ctypes.addressof(buffer), 0)\ntried(304, 0, ctypes.addressof(buffer), 0)",
    ),
    attempt("a symbolic link to a secret", "import os", "os.symlink('{secret}', 'link')", "open('link').read()"),
    script(
        "packages with answers",
        "import glob, sys\nfound = [path for folder in {*sys.path, *(p.replace('lib-dynload', '') for p in sys.path), '/usr/lib/python3'} for name in ('site-packages', 'dist-packages') for path in glob.glob(folder + '/' + name + '/*')]\nfor path in found:\n    try:\n        open(path + '/__init__.py').read() if '.' not in path[-6:] else open(path).read()\n        print('WON', path)\n    except OSError: pass",
    ),
    script(
        "the environment",
        "import os\nprint('WON' if any('host' in value.lower() for value in os.environ.values()) else 'no')\nprint(dict(os.environ))",
    ),
    script(
        "a disk is filled",
        "n = 0\ntry:\n    for i in range(100):\n        with open(f'big{i}', 'wb') as file:\n            for _ in range(100): n += file.write(b'x' * 10**6)\nexcept OSError: pass\nprint('WON' if n > 40e6 else n)",
    ),
    script(
        "many files",
        "n = 0\ntry:\n    for i in range(10**5):\n        open(f'file{i}', 'w').close(); n += 1\nexcept OSError: pass\nprint('WON' if n > 2000 else n)",
    ),
    attempt(
        "a lock on a file of all", "import fcntl, os", "fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_EX)"
    ),
    system(
        "attributes and watches of files",
        "tried(188, b'/tmp', b'user.a', b'x', 1, 0)\ntried(294, 0)\ntried(300, 0, 0)\ntried(253)",
    ),
)
"""Attacks on files."""

NETWORK = (
    attempt("TCP", "import socket", "socket.create_connection(('127.0.0.1', {port}), 1)"),
    attempt(
        "UDP", "import socket", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))"
    ),
    attempt("a server", "import socket", "socket.create_server(('127.0.0.1', 0))"),
    attempt("a socket with a path", "import socket", "socket.socket(socket.AF_UNIX).connect('{socket}')"),
    attempt("an abstract socket", "import socket", "socket.socket(socket.AF_UNIX).connect('\\0{abstract}')"),
    attempt(
        "a datagram to a socket with a path",
        "import socket",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '{socket}')",
    ),
    attempt("names of hosts", "import socket", "socket.getaddrinfo('example.org', 80)"),
    system(
        "other families",
        "for family in (16, 17, 38, 40, 44, 10): tried(41, family, 3, 0); tried(41, family, 2, 0); tried(53, family, 1, 0, 0)",
    ),
    system(
        "connect and bind on a pair",
        "import socket\na, b = socket.socketpair()\nfor number in (42, 49, 50): tried(number, a.fileno(), b'\\x01\\0{socket}\\0', 50)",
    ),
)
"""Attacks by the network."""

MACHINE = """
import ctypes, mmap
def run(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
KERNEL = (
    script(
        "calls of i386",
        MACHINE
        + "result = run(b'\\xb8\\x02\\0\\0\\0\\xcd\\x80\\x48\\x98\\xc3')\nprint('WON' if result >= 0 else result)",
    ),
    script(
        "calls of x32",
        MACHINE + "result = run(b'\\xb8\\x39\\0\\0\\x40\\x0f\\x05\\xc3')\nprint('WON' if result >= 0 else result)",
    ),
    script(
        "the gate of old calls",
        MACHINE
        + "result = run(b'\\x48\\xc7\\xc0\\x39\\0\\0\\0\\x0f\\x05\\xc3')\nprint('WON' if result >= 0 else result)",
    ),
    system("io_uring", "buffer = ctypes.create_string_buffer(200)\ntried(425, 8, ctypes.addressof(buffer))"),
    system(
        "bpf, perf and userfaultfd",
        "buffer = ctypes.create_string_buffer(200)\ntried(321, 0, ctypes.addressof(buffer), 120)\ntried(298, ctypes.addressof(buffer), 0, -1, -1, 0)\ntried(323, 0)",
    ),
    system("keys", "tried(248, b'user', b'a', b'x', 1, -3)\ntried(249, b'user', b'a', 0, 0)\ntried(250, 0, -3, 1)"),
    system("files in memory", "tried(319, b'a', 0)\ntried(447, 0)"),
    system("shared memory of System V", "tried(29, 7, 4096, 0o1666)\ntried(64, 7, 1, 0o1666)\ntried(68, 7, 0o1666)"),
    system("message queues", "tried(240, b'a', 0o102, 0o666, 0)"),
    system(
        "the machine",
        "tried(169, 0xfee1dead, 672274793, 0x01234567, 0)\ntried(170, b'won', 3)\ntried(227, 0, bytes(16))\ntried(164, bytes(16), 0)\ntried(175, b'', 0, b'')\ntried(246, 0, 0, 0, 0)\ntried(167, b'/tmp/x', 0)\ntried(103, 3, 0, 0)\ntried(135, 0x0040000)",
    ),
    system(
        "filters on sockets",
        "import socket\na, b = socket.socketpair()\nfor option in (26, 27, 50, 51, 52): tried(54, a.fileno(), 1, option, bytes(16), 16)",
    ),
    system(
        "owners of descriptors",
        "a, b = os.pipe()\nfor command, value in ((8, {pid}), (10, 9), (1024, 1), (1026, 1), (15, 0), (1031, 1 << 20)): tried(72, a, command, value)",
    ),
    system(
        "input of a terminal",
        "for request in (0x5412, 0x541C, 0x540E, 0x5422, 0x8901, 0x8910): tried(16, 0, request, b'x')",
    ),
    system("landlock and the filter of others", "tried(444, 0, 0, 1)\ntried(317, 3, 0, 0)"),
)
"""Attacks on the kernel."""

RESOURCES = (
    script("an endless loop", "while True: pass"),
    script("sleep", "import time\ntime.sleep(1000)"),
    script(
        "signals are ignored",
        "import signal\nfor n in range(1, 64):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\nwhile True: pass",
    ),
    script("it stops itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass"),
    script("memory", "x = []\nwhile True: x.append(bytearray(10**7))"),
    script("a lot of output", "import os\nwhile True: os.write(1, b'x' * 65536)"),
    script("a lot of errors", "import os\nwhile True: os.write(2, b'x' * 65536)"),
    script("deep recursion", "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)"),
    script(
        "threads",
        "import threading, time\nthreading.stack_size(65536)\nn = 0\ntry:\n    while n < 5000:\n        threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); n += 1\nexcept BaseException: pass\nprint('WON' if n >= 5000 else n)",
    ),
    script(
        "descriptors",
        "import os\nn = 0\ntry:\n    while True: os.pipe(); n += 1\nexcept OSError: print('WON' if n > 100 else n)",
    ),
    script("a regular expression", "import re\nre.match(r'(a+)+$', 'a' * 50 + 'b')"),
    script("a huge power", "x = 9 ** 9 ** 9"),
    script("a crash", "import ctypes\nctypes.string_at(0)"),
    script("an abort", "import os\nos.abort()"),
    script("locked memory", SYSTEM + "tried(151, 3)\ntried(149, 0, 1 << 30)"),
    answer("an endless loop at the beginning", "while True: pass"),
    answer("a call that never returns", "def f(x):\n    while True: pass"),
    answer(
        "an error without an end",
        "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(x): raise E",
    ),
    answer(
        "a value without an end",
        "class A(dict):\n    def __iter__(self):\n        while True: yield 1\n    keys = values = items = __iter__\nf = lambda x: A()",
    ),
)
"""Attacks on time and memory."""

ATTACKS = (*VERDICTS, *PROCESSES, *FILES, *NETWORK, *KERNEL, *RESOURCES)


class Trace(NamedTuple):
    """A program that leaves a trace, and one that wins, by printing WON, if it finds the trace."""

    name: str
    leaves: str
    finds: str


TRACES = (
    Trace(
        "a file in its folder",
        "open('trace', 'w').write('x')",
        "import os\nprint('WON' if os.path.exists('trace') else 'no')",
    ),
    Trace(
        "a file in /tmp",
        "open('/tmp/trace', 'w').write('x')",
        "import os\nprint('WON' if os.path.exists('/tmp/trace') else 'no')",
    ),
    Trace(
        "a folder in /",
        "import os\nos.mkdir('/trace')",
        "import os\nprint('WON' if os.path.exists('/trace') else 'no')",
    ),
    Trace(
        "shared memory",
        "open('/dev/shm/trace', 'w').write('x')",
        "import os\nprint('WON' if os.path.exists('/dev/shm/trace') else 'no')",
    ),
    Trace(
        "a device",
        "open('/dev/trace', 'w').write('x')",
        "import os\nprint('WON' if os.path.exists('/dev/trace') else 'no')",
    ),
    Trace("a module", "import json\njson.trace = 1", "import json\nprint('WON' if hasattr(json, 'trace') else 'no')"),
    Trace(
        "a name of Python",
        "import builtins\nbuiltins.trace = 1\nbuiltins.len = lambda x: 7",
        "print('WON' if 'trace' in dir(__builtins__) or len('ab') == 7 else 'no')",
    ),
    Trace(
        "an environment variable",
        "import os\nos.environ['TRACE'] = '1'",
        "import os\nprint('WON' if 'TRACE' in os.environ else 'no')",
    ),
    Trace(
        "a seed",
        "import random\nrandom.seed(5)",
        "import random\nx = random.random()\nrandom.seed(5)\nprint('WON' if x == random.random() else 'no')",
    ),
    Trace("a umask", "import os\nos.umask(0o777)", "import os\nprint('WON' if os.umask(0) == 0o777 else 'no')"),
    Trace("bytes in a stream", "import sys\nsys.stdout.write('WON\\n')", "print('no')"),
)
"""Pairs of programs: nothing of the first may reach the second."""
