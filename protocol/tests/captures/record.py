#!/usr/bin/env python3
"""Records the captures 200 and up anew with the rsync in PATH: record.py [CASE ...], run as root on Linux.

The `.tree` files hold the trees, one entry a line: side, kind, name, mode, uid, gid, mtime, nsec, content. Captures below
200 were recorded alike with several releases. Seeds and the order of directory scans differ from run to run."""
import json, os, re, shutil, subprocess, sys, tempfile, urllib.parse
HERE = os.path.dirname(os.path.abspath(__file__))
FLIP = "464c49504d453030:464c49504d453031"
NOINC = "--no-inc-recursive "
CASES = {}
for name, tree, way, opts, more in [
    ("push", "two", "push", "-a", {}),
    ("pull", "two", "pull", "-a", {}),
    ("push-p31", "tree", "push", "-a --protocol=31", {}),
    ("pull-p31", "tree", "pull", "-a --protocol=31", {}),
    ("push-p30", "tree", "push", "-a --protocol=30", {}),
    ("pull-p30", "tree", "pull", "-a --protocol=30", {}),
    ("push-links", "links", "push", "-a", {}),
    ("pull-links-p30", "links", "pull", "-a --protocol=30", {}),
    ("push-checksum", "tree", "push", "-ac", {}),
    ("pull-checksum-sha1", "tree", "pull", "-ac --checksum-choice=sha1", {}),
    ("push-md5-remove-source", "tree", "push", "-ac --checksum-choice=md5 --remove-source-files --log-format=%i%I", {}),
    ("pull-remove-source", "tree", "pull", "-a --remove-source-files", {}),
    ("push-relative", "tree", "push", "-aR", {"sources": ["src/./a/sub/deep.txt", "src/./b"]}),
    ("pull-relative", "tree", "pull", "-aR", {"sources": ["src/./a/sub/deep.txt", "src/./b"]}),
    ("push-dryrun", "tree", "push", "-ani", {}),
    ("pull-dryrun", "tree", "pull", "-ani", {}),
    ("push-redo", "redo", "push", "-a", {"FLIP_C2S": FLIP}),
    ("pull-redo", "redo", "pull", "-a", {"FLIP_S2C": FLIP}),
    ("push-redo-p30", "redo", "push", "-a --protocol=30", {"FLIP_C2S": FLIP}),
    ("pull-redo-xxh64", "redo", "pull", "-a --checksum-choice=xxh64", {"FLIP_S2C": FLIP}),
    ("pull-filters", "tree", "pull", "-a --exclude=/c.txt --include=*.txt --filter=hide,p_b/", {}),
    ("push-delete", "tree", "push", "-a --delete-after", {}),
    ("pull-delete-stats", "tree", "pull", "-a --delete-after --stats", {}),
    ("push-unreadable", "tree", "push", "-a", {"unreadable": "c.txt"}),
    ("pull-unreadable", "tree", "pull", "-a --stderr=client", {"unreadable": "c.txt"}),
    ("pull-unreadable-p30", "tree", "pull", "-a --protocol=30", {"unreadable": "c.txt"}),
    ("pull-bad-dir", "tree", "pull", "-a", {"unreadable": "b"}),
    ("push-missing-dest", "two", "push", "-a", {"dest": "no/such/dir/"}),
    ("push-missing-src", "two", "push", "-a", {"sources": ["nosuch/"]}),
    ("pull-missing-src", "two", "pull", "-a", {"sources": ["nosuch/"]}),
    ("push-numeric-verbose", "tree", "push", "-avv --numeric-ids --checksum-seed=-5", {}),
    ("pull-verbose-none", "tree", "pull", "-avv --checksum-choice=none", {}),
    ("push-not-slash", "tree", "push", "-r", {"sources": ["src"]}),
    ("pull-single", "single", "pull", "-a", {"sources": ["src/one.txt"], "dest": "dst/renamed.txt"}),
    ("push-blocks-xxh3", "inplace", "push", "-a -B700 --checksum-choice=xxh3", {}),
    ("push-whole-devices", "none", "push", "-aWR", {"sources": ["/dev/null", "/dev/zero"]}),
    ("push-zstd", "smallz", "push", "-az", {}),
    ("pull-zstd-p31", "smallz", "pull", "-az --protocol=31", {}),
    ("push-lz4-p30", "smallz", "push", "-a --zc=lz4 --protocol=30", {}),
    ("pull-lz4", "smallz", "pull", "-a --zc=lz4", {}),
    ("push-zlibx", "smallz", "push", "-azz", {}),
    ("pull-zlibx-p30", "smallz", "pull", "-azz --protocol=30", {}),
    ("push-zlib-p30", "smallz", "push", "-a --zc=zlib --protocol=30", {}),
    ("pull-zlib", "smallz", "pull", "-a --zc=zlib", {}),
    ("push-zlib-level", "comp", "push", "-a --zc=zlib --zl=9", {}),
    ("pull-zstd-many", "comp", "pull", "-az --checksum-choice=md5", {}),
]:
    CASES[f"{200 + len(CASES)}-{name}"] = (tree, way, NOINC + opts, more)

SHELL = '''import os, subprocess, sys, threading
cap = os.environ["CAPDIR"]
words = sys.argv[2:]
open(cap + "/server-argv.txt", "w").write("\\n".join(words) + "\\n")
server = subprocess.Popen(["/bin/sh", "-c", " ".join(words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def pump(src, dst, name, flip):
    old, new = (bytes.fromhex(x) for x in flip.split(":")) if flip else (None, None)
    with open(cap + "/" + name, "wb") as log:
        while data := os.read(src, 65536):
            if old and old in data:
                data, old = data.replace(old, new, 1), None
            log.write(data); log.flush()
            try: dst.write(data); dst.flush()
            except BrokenPipeError: pass
    try: dst.close()
    except OSError: pass
t = threading.Thread(target=pump, args=(0, server.stdin, "c2s.bin", os.environ.get("FLIP_C2S")), daemon=True)
t.start()
pump(server.stdout.fileno(), sys.stdout.buffer, "s2c.bin", os.environ.get("FLIP_S2C"))
code = server.wait(); t.join(2); os._exit(code)
'''

def materialise(root, tree, side):
    os.makedirs(root)
    rows = [line.split("\t") for line in open(os.path.join(HERE, tree + ".tree")).read().splitlines()]
    rows = [(kind, os.path.join(root, urllib.parse.unquote(name)), *rest) for at, kind, name, *rest in rows if at == side]
    for kind, path, mode, uid, gid, mtime, nsec, data in rows:
        if kind == "D": os.makedirs(path, exist_ok=True); continue
        if kind == "H": os.link(os.path.join(root, data), path); continue
        if kind == "L": os.symlink(urllib.parse.unquote(data), path)
        if kind == "P": os.mkfifo(path)
        if kind == "F": open(path, "wb").write(bytes.fromhex(data) if data != "-" else b"")
        attributes(kind, path, mode, uid, gid, mtime, nsec)
    for kind, path, mode, uid, gid, mtime, nsec, data in reversed(rows):
        if kind == "D": attributes(kind, path, mode, uid, gid, mtime, nsec)

def attributes(kind, path, mode, uid, gid, mtime, nsec):
    os.lchown(path, int(uid), int(gid))
    if kind != "L": os.chmod(path, int(mode, 8))
    time = int(mtime) * 10**9 + int(nsec)
    os.utime(path, ns=(time, time), follow_symlinks=False)

def record(name):
    tree, way, opts, more = CASES[name]
    cap = os.path.join(HERE, name); shutil.rmtree(cap, ignore_errors=True); os.makedirs(cap)
    w = tempfile.mkdtemp(); os.chmod(w, 0o755)
    for side in ("src", "dst"): materialise(os.path.join(w, side), tree, side)
    open(w + "/shell.py", "w").write(SHELL)
    env = dict(os.environ, CAPDIR=cap, LC_ALL="C.UTF-8", HOME=w, **{k: v for k, v in more.items() if k.startswith("FLIP")})
    sources, dest = more.get("sources", ["src/"]), more.get("dest", "dst/")
    args = ["rsync", *(o.replace("_", " ") if o.startswith("--filter") else o for o in opts.split()), "-e", "python3 shell.py"]
    args += sources + ["h:" + dest] if way == "push" else ["h:" + sources[0], *(":" + s for s in sources[1:]), dest]
    drop = None
    if hidden := more.get("unreadable"):
        for root, dirs, files in os.walk(w):
            for x in [root, *(os.path.join(root, f) for f in files)]: os.lchown(x, 65534, 65534)
        os.chown(f"{w}/src/{hidden}", 0, 0); os.chmod(f"{w}/src/{hidden}", 0); os.chmod(cap, 0o777)
        drop = lambda: (os.setgroups([]), os.setgid(65534), os.setuid(65534))
    run = subprocess.run(args, cwd=w, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=drop, timeout=60)
    version = re.search(r"version (\S+)", subprocess.check_output(["rsync", "--version"], text=True))[1]
    json.dump({"tree": tree, "client": version, "server": version, "mode": way, "cmd": " ".join(args), "exit": run.returncode,
               "output": run.stdout.decode("utf8", "replace").replace(w, "WORKDIR"), "flip": more.get("FLIP_C2S") or more.get("FLIP_S2C"),
               "unreadable": more.get("unreadable")}, open(cap + "/meta.json", "w"), indent=1)
    for f in os.listdir(cap): os.chown(os.path.join(cap, f), 0, 0); os.chmod(os.path.join(cap, f), 0o644)
    os.chmod(cap, 0o755)
    print(f"{name:30} exit={run.returncode}", *(os.path.getsize(os.path.join(cap, f)) for f in ("c2s.bin", "s2c.bin")))
    shutil.rmtree(w)

for name in sys.argv[1:] or CASES: record(name)
