"""Databases, temporary files, copied trees, memory maps, locks and archives."""

import dbm.dumb
import fcntl
import mmap
import os
import pathlib
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import threading
import zipfile


def databases():
    for journal in ("delete", "wal"):
        name = f"{journal}.sqlite"
        with sqlite3.connect(name) as db:
            print("journal", db.execute(f"pragma journal_mode={journal}").fetchone()[0])
            db.execute("create table t (n integer primary key, word text)")
            db.executemany("insert into t (word) values (?)", [(f"w{n}",) for n in range(500)])
        with sqlite3.connect(name) as reader, sqlite3.connect(name) as writer:
            writer.execute("delete from t where n % 2")
            print("rows", reader.execute("select count(*), max(word) from t").fetchone())
        print("left", sorted(path.name for path in pathlib.Path().glob(f"{name}*") if journal == "delete"))
    memory = sqlite3.connect(":memory:")
    print("memory", memory.execute("select sqlite_version() > '3'").fetchone())
    with dbm.dumb.open("store", "c") as store:
        store["key"] = "value"
    print("dbm", dbm.dumb.open("store")["key"])


def temporary():
    with tempfile.TemporaryFile() as file, tempfile.NamedTemporaryFile() as named:
        file.write(b"x" * 100_000)
        print("temporary", file.tell(), stat.filemode(os.stat(named.name).st_mode))
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "a").write_text("a")
        print("directory", os.listdir(directory), stat.filemode(os.stat(directory).st_mode))
    print("gone", os.path.exists(directory))
    with tempfile.SpooledTemporaryFile(max_size=10) as spooled:
        spooled.write(b"more than ten bytes")
        spooled.seek(0)
        print("spooled", spooled.read().decode())


def trees():
    root = pathlib.Path("tree")
    for number in range(30):
        directory = root / f"d{number % 5}" / f"e{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_text("text " * number)
    (root / "link").symlink_to("d0/e0")
    (root / "dangling").symlink_to("nowhere")
    os.link(root / "d0/e0/f0", root / "hard")
    os.chmod(root / "hard", 0o640)
    os.utime(root / "hard", (1_000_000_000, 1_100_000_000))
    shutil.copytree(root, "copy", symlinks=True)
    for directory, folders, files in os.walk("copy"):
        folders.sort()
        print(directory, sorted(files))
    print(
        "copied", stat.filemode(os.stat("copy/hard").st_mode), os.stat("copy/hard").st_mtime, os.readlink("copy/link")
    )
    shutil.move("copy", "moved")
    os.replace("moved/hard", "moved/renamed")
    print("glob", sorted(map(str, pathlib.Path("moved").rglob("f1*"))))
    shutil.rmtree("moved")
    print("removed", os.path.lexists("moved"))
    print("resolve", (root / "link/../link/f0").resolve().relative_to(pathlib.Path.cwd()))
    print("disk", shutil.disk_usage(".").total > 0, os.statvfs(".").f_namemax)


def maps_and_locks():
    with open("mapped", "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[4096:4101] = b"hello"
    print("mapped", pathlib.Path("mapped").read_bytes()[4096:4101].decode())
    with open("locked", "w") as one, open("locked") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        try:
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("flock held")
        fcntl.lockf(one, fcntl.LOCK_EX)
        print("lockf held")


def odd_files():
    os.mkfifo("fifo")
    reader = threading.Thread(target=lambda: print("fifo", open("fifo").read()))
    reader.start()
    with open("fifo", "w") as fifo:
        fifo.write("through a fifo")
    reader.join()
    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(descriptor, b"unnamed")
    print("tmpfile", os.pread(descriptor, 10, 0).decode(), os.fstat(descriptor).st_nlink)
    os.setxattr("mapped", "user.note", b"attribute")
    print("xattr", os.getxattr("mapped", "user.note").decode(), os.listxattr("mapped"))
    directory = os.open("tree", os.O_RDONLY | os.O_DIRECTORY)
    with open(os.open("beneath", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory), "w") as file:
        file.write("relative to a descriptor")
    print("dir_fd", sorted(os.listdir(directory))[:2], os.stat("beneath", dir_fd=directory).st_size)
    print("dev", open("/dev/null").read(), len(open("/dev/urandom", "rb").read(8)), os.path.exists("/dev/fd/0"))
    os.chdir("tree")
    print("cwd", pathlib.Path("beneath").read_text(), os.path.basename(os.getcwd()))
    os.chdir("..")


def archives():
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.write("mapped")
    with zipfile.ZipFile("a.zip") as archive:
        print("zip", archive.namelist())
        archive.extractall("unzipped")
    with tarfile.open("a.tar.gz", "w:gz") as archive:
        archive.add("tree")
    with tarfile.open("a.tar.gz") as archive:
        print("tar", len(archive.getnames()))
        archive.extractall("untarred")
    print("extracted", sorted(os.listdir("untarred/tree")))
    shutil.make_archive("b", "xztar", "tree")
    print("archive", os.path.exists("b.tar.xz"))


databases()
temporary()
trees()
maps_and_locks()
odd_files()
archives()
